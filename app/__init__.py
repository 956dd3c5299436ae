"""Tableside: an HTTP server of scikit-learn models.

This module imports nothing, so that importing one subpackage does not import the others.
"""

__version__ = "0.1.0"
