"""Prometheus metrics of all workers, on the control plane."""
