"""Random changes of photographs on the device that trains."""
