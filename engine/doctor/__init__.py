"""This machine in, a report out: what is there, which path each stage takes, how to get what is missing."""
