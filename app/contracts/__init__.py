"""The contract of a version: its typed input table, its outputs and its tolerances."""
