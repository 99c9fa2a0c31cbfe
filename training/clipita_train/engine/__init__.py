"""The training loop and its parts; losses, models and data are its arguments."""
