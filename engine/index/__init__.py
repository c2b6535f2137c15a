"""A store in, an index of its vectors out; and a query in, the videos that may answer it best out."""
