"""Restarts, kills and upgrades of a running stack beside a steady client: what fails, and how long requests wait."""
