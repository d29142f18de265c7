"""`python -m saebyeok_client`."""

from .cli import main

main()
