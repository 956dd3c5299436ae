"""Attacks on a running stack of two workers beside a steady client: what each one costs, and whom it hurts."""
