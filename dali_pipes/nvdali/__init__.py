"""Pruned segments or JPEG files in, super images out: NVIDIA DALI, on a GPU or as its CPU variant."""
