"""Writing versions: from a trained estimator and a sample to an immutable folder."""
