"""Starts, describes and stops the whole stack: socket holders, supervisord, gunicorn and nginx."""
