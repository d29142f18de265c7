"""From raw files to validated, encoded rows."""
