"""Metrics, logs, the access log, and what is measured of each request."""
