"""Model processes: supervised processes that run models in Python environments of their own."""
