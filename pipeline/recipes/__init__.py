"""The shipped recipes, one TOML file each, and their schema."""
