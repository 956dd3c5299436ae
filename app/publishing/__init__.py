"""Publish: from a trained estimator and a sample to an immutable version folder in the repository."""
