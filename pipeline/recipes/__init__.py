"""The recipes that ship, one TOML each."""
