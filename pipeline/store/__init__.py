"""The artifact store and the deployment log."""
