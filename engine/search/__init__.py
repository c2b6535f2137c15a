"""Questions and a store in, the best videos with their scores and moments out."""
