"""Serving: the versions that one worker answers for, their states, and how workers agree on one catalog."""
