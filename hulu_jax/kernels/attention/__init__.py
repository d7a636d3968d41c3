"""Attention that never leaves its segment: frames of a slot, samples of a packed row."""
