"""Ranked moments and true moments in, the field's own metrics out; and predictions in the formats of its benchmarks."""
