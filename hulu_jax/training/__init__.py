"""The trainer: what a run holds, one step of it, and the loop that reads top to bottom."""
