"""The URL rule of a request, for traces: spans of one kind have one name, whatever a path's variable parts are."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from flask import Flask
from werkzeug.exceptions import HTTPException
from werkzeug.routing import RequestRedirect

if TYPE_CHECKING:
    from tableside.telemetry.tracing import RouteOf

_VARIABLE = re.compile(r"<(?:[^:<>]+:)?([^<>]+)>")


def route_names(app: Flask) -> RouteOf:
    """Return a function from a method and a path to the rule, such as `/v2/models/{name}/infer`."""

    @lru_cache(maxsize=1024)
    def route_of(method: str, path: str) -> str:
        try:
            rule, _ = app.url_map.bind("localhost", path_info=path, default_method=method).match(return_rule=True)
        except (HTTPException, RequestRedirect):
            return ""
        return _VARIABLE.sub(r"{\1}", str(rule.rule))

    return route_of
