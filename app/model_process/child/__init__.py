"""The program of a model process. Interpreters of other environments run its files by their path."""
