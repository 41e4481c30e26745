"""What can be promised about the error on new data, with which probability."""
