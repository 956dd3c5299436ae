"""The gunicorn worker class: scheduling, keepalive, one-send responses, JSON errors, accepting, recycling, draining."""
