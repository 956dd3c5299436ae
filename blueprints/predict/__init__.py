"""Predictions: the Open Inference Protocol (V2) and the V1 protocol of KServe and TF-Serving."""
