"""The gunicorn worker class: scheduling, keepalive, one-send responses, JSON errors, accepting and draining."""
