"""gunicorn's logger without its access log: it would format a line for nobody at each request, which takes 30 us.

The application writes the access log itself (`tableside.telemetry.access_log`).
"""

from __future__ import annotations

from gunicorn.glogging import Logger


class GunicornLog(Logger):
    """The `logger_class` of gunicorn.conf.py."""

    def access(self, resp: object, req: object, environ: object, request_time: object) -> None:
        """Write an access log line only where the setting `accesslog` asks for one."""
        if self.cfg.accesslog:
            super().access(resp, req, environ, request_time)
