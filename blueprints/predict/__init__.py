"""Predictions: the Open Inference Protocol (V2), V1 of KServe and TF-Serving, and `/invocations` of MLflow."""
