"""A video and some of its seconds in, clips of them out."""
