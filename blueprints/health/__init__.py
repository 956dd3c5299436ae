"""Liveness and readiness, for probes and for people."""
