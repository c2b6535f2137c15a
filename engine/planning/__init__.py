"""A job that is not yet begun in, its size, its hours and its bytes out."""
