"""Imports the own code of versions from memory. Model processes use it too: Python 3.8, no other part of Tableside."""
