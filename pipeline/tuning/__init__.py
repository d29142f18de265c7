"""Search for better hyperparameters."""
