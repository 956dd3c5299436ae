"""The media types of tables that are no JSON, which `/invocations` reads."""

from __future__ import annotations

CSV = "text/csv"
ARROW = "application/vnd.apache.arrow.stream"
PARQUET = ("application/vnd.apache.parquet", "application/x-parquet")
JSON_LINES = ("application/jsonlines", "application/x-jsonlines", "application/x-ndjson")
"""The names that JSON lines have: SageMaker's, an older one, and that of ndjson.org."""
NPY = "application/x-npy"
ALL = frozenset((CSV, ARROW, *PARQUET, *JSON_LINES, NPY))
