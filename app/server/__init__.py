"""The gunicorn worker class: scheduling, keepalive, one-send responses, JSON errors, accept balancing and draining."""
