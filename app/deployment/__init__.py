"""Starting, describing and stopping the whole stack: sockets, supervisord, gunicorn, nginx."""
