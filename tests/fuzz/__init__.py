"""Damaged files of every kind in, what became of each out: refused with a sentence, or read right, and nothing else.

`python -m fuzz --minutes 2` (with tests/ on the path, as `make fuzz` has it). A kind of file is a module with a `Kind`
(see contract.py); damage.py is what happens to bytes, packets and JSON; pool.py runs cases in processes that may die.
"""
