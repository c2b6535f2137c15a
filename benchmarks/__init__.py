"""A peer and a workload in, measured ratios (JSON with machine and versions) out."""
