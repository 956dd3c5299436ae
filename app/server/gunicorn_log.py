"""gunicorn's logger: without its access log, and without the text of requests that it cannot read.

The application writes the access log (`tableside.telemetry.access_log`): formatting a line of gunicorn's that is not
written takes 30 us of each request.
"""

from __future__ import annotations

from gunicorn.glogging import Logger

_INVALID = "Invalid request from ip="


class GunicornLog(Logger):
    """The `logger_class` of gunicorn.conf.py."""

    def access(self, resp: object, req: object, environ: object, request_time: object) -> None:
        """Write an access log line if the setting `accesslog` names a file, and do nothing otherwise."""
        if self.cfg.accesslog:
            super().access(resp, req, environ, request_time)

    def warning(self, msg: str, *args: object, **kwargs: object) -> None:
        """Write a warning. Of a request that gunicorn cannot read it says what is wrong, and not the text itself.

        gunicorn quotes the line: a header without a colon may be a key, and after a wrong length a body is read so.
        """
        super().warning(without_quoted_text(msg), *args, **kwargs)


def without_quoted_text(message: str) -> str:
    """Return gunicorn's `Invalid request from ip=ADDRESS: ERROR: TEXT` without the text of the request."""
    if not message.startswith(_INVALID):
        return message
    address, _, error = message.partition(": ")
    return f"{address}: {error.partition(': ')[0]}"
