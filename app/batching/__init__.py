"""Batching: one queue for each model; requests that arrive while the model is busy share the next call.

The package knows callables and numbers of rows. It knows nothing of models, estimators or HTTP.
"""
