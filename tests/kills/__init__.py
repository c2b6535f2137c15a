"""Long commands killed at random moments in, what is there after --resume out: the same as of an undisturbed run.

`python -m kills --runs 100` (with tests/ on the path, as `make kills` has it). scenarios.py holds the commands,
states.py what they leave, disturbance.py how they are killed.
"""
