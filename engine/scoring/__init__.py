"""Unit vectors of videos and queries in, scores, ranks and best videos out: the kernel and the aggregates."""
