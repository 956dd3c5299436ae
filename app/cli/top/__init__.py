"""`tableside top`: what a stack does now, for each model and each worker."""
