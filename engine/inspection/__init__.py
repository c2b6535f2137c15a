"""A video file in, why decoding its wanted frames costs what it costs out."""
