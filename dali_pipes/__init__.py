"""Files in, pixel batches out: sampling, pruning, decoding and super images."""
