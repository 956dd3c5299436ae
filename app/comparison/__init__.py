"""Comparison of two versions of models: what clients see of them, what they answer to the same rows, and how fast."""
