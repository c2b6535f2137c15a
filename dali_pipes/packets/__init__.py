"""A video file in, the packets that the wanted frames need out: scanning, pruning, remuxing. Nothing is decoded."""
