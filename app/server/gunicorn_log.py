"""gunicorn's logger: without its access log, without the text of requests that it cannot read, and with the signals.

The application writes the access log (`tableside.telemetry.access_log`): formatting a line of gunicorn's that is not
written takes 30 us of each request. How a worker has ended is passed to no hook of gunicorn: the master only logs it.
"""

from __future__ import annotations

from gunicorn.glogging import Logger

_INVALID = "Invalid request from ip="
SIGNALLED, EXITED = "Worker (pid:%s) was sent %s!", "Worker (pid:%s) exited with code %s."
"""What gunicorn logs of a worker that a signal has ended, with the signal's name, or that had an exit code but 0."""


class GunicornLog(Logger):
    """The `logger_class` of gunicorn.conf.py.

    endings: how workers have ended, by pid: the name of the signal, or the exit code. `take_ending` removes one.
    """

    def __init__(self, cfg: object) -> None:
        super().__init__(cfg)
        self.endings: dict[int, int | str] = {}

    def take_ending(self, pid: int) -> int | str:
        """Return how a worker has ended: the name of the signal, or its exit code."""
        return self.endings.pop(pid, 0)

    def access(self, resp: object, req: object, environ: object, request_time: object) -> None:
        """Write an access log line if the setting `accesslog` names a file, and do nothing otherwise."""
        if self.cfg.accesslog:
            super().access(resp, req, environ, request_time)

    def warning(self, msg: str, *args: object, **kwargs: object) -> None:
        """Write a warning. Of a request that gunicorn cannot read it says what is wrong, and not the text itself.

        gunicorn quotes the line: a header without a colon may be a key, and after a wrong length a body is read so.
        """
        if not self._has_noted(msg, args):
            super().warning(without_quoted_text(msg), *args, **kwargs)

    def info(self, msg: str, *args: object, **kwargs: object) -> None:
        """Write a line, unless it says how a worker has ended: `child_exit` says that with the reason."""
        if not self._has_noted(msg, args):
            super().info(msg, *args, **kwargs)

    def error(self, msg: str, *args: object, **kwargs: object) -> None:
        """Write an error, unless it says how a worker has ended: `child_exit` says that with the reason."""
        if not self._has_noted(msg, args):
            super().error(msg, *args, **kwargs)

    def _has_noted(self, msg: object, args: tuple[object, ...]) -> bool:
        """Note how a worker has ended. Returns whether the line need not be written."""
        if not isinstance(msg, str) or not msg.startswith((SIGNALLED, EXITED)) or len(args) != 2:
            return False
        pid, ending = args
        if isinstance(pid, int) and isinstance(ending, int | str):
            self.endings[pid] = ending
        return msg.startswith(SIGNALLED)  # after some exit codes gunicorn calls no hook


def without_quoted_text(message: str) -> str:
    """Return gunicorn's `Invalid request from ip=ADDRESS: ERROR: TEXT` without the text of the request."""
    if not message.startswith(_INVALID):
        return message
    address, _, error = message.partition(": ")
    return f"{address}: {error.partition(': ')[0]}"
