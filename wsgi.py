"""The WSGI application, `wsgi:application`: for the stack's gunicorn workers, and for any other WSGI server.

In the stack it has no models at first: each worker loads them after the fork, in post_worker_init of gunicorn.conf.py.
Under another server each process loads them with its first request.
"""

import sys

from flask import Flask

from tableside.factory import create_app
from tableside.settings import load
from tableside.web.any_server import ApplicationForAnyServer

application: Flask | ApplicationForAnyServer
if "tableside.server.worker" in sys.modules:  # gunicorn has imported the stack's worker class before
    application = create_app()
else:
    load()  # settings that cannot be read end the server now, and not its first request
    application = ApplicationForAnyServer(create_app)
