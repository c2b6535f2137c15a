"""Pruned packets in, frames and super images out, on the CPU: PyAV and decord."""
