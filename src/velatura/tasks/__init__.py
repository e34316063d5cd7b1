"""One application, one file."""
