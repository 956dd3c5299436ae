"""What gunicorn serves: `wsgi:application`. Models load in `gunicorn.conf.py`'s post_worker_init, after the fork."""

from tableside.factory import create_app

application = create_app()
