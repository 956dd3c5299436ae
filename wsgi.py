"""The WSGI application that gunicorn serves, `wsgi:application`.

It has no models at first: each worker loads them after the fork, in post_worker_init of gunicorn.conf.py.
"""

from tableside.factory import create_app

application = create_app()
