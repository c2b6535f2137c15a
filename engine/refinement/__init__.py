"""Coarse to fine: the best videos of a query in, frames around their best moments decoded again, better answers out."""
