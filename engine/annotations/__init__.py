"""Annotation files of every known format in, queries with their videos and times out."""
