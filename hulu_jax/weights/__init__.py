"""Weights in and out: Hugging Face folders, through one table of names, and run folders."""
