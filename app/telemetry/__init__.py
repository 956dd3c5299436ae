"""Metrics, structured logs, the access log, and the trace of each request."""
