"""What is ours of the gunicorn worker: scheduling, keepalive, answers in one send, draining."""
