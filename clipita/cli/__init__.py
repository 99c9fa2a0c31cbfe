"""Define the command `clipita`."""
