"""Conversion of request bodies (JSON, tensors, CSV, Arrow, Parquet) to tables, and of outputs to JSON or bytes."""
