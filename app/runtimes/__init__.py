"""Loads artifacts and runs them: a table goes in, arrays come out."""
