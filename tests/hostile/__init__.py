"""Bodies and files that are made to hurt, and processes in which it is measured how much they do."""
