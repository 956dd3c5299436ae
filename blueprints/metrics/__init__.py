"""Prometheus metrics of all workers: control plane."""
