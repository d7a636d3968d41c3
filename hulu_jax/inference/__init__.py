"""Answering: prompts to shapes, a key-value cache, sampling, and the loop that writes tokens."""
