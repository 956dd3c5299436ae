"""Finds the Flask hooks that apply to an endpoint and are not Tableside's own.

The fast dispatch (`tableside.web.dispatch`) runs no hooks, so its endpoints must not have any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import accumulate

from flask import Flask, signals

from tableside.web import error_replies, guard, large_answers, request_lifecycle

Hook = Callable[..., object]
OWN: frozenset[Hook] = frozenset(
    (
        request_lifecycle.begin_request, guard.check_request, request_lifecycle.end_request, error_replies.handle,
        large_answers.pass_on,
    )
)  # fmt: skip
"""Hooks whose work the fast dispatch does itself."""
SIGNALS = (
    "request_started", "request_finished", "request_tearing_down", "got_request_exception", "appcontext_pushed",
    "appcontext_popped", "appcontext_tearing_down",
)  # fmt: skip
"""Signals of Flask that are sent for each request."""


def foreign_hooks(app: Flask, endpoint: str) -> Iterator[str]:
    """Describe each hook that is not Tableside's own, as in `before_request hook 'log_user' of blueprint 'predict'`."""
    blueprint = endpoint.rpartition(".")[0]
    names = accumulate(blueprint.split("."), lambda outer, inner: f"{outer}.{inner}") if blueprint else ()
    for scope in (None, *names):
        owner = "the application" if scope is None else f"blueprint {scope!r}"
        for kind, hook in _hooks(app, scope):
            if hook not in OWN:
                yield f"{kind} {_name(hook)!r} of {owner}"


def _hooks(app: Flask, scope: str | None) -> Iterator[tuple[str, Hook]]:
    for kind, by_scope in (
        ("before_request hook", app.before_request_funcs),
        ("after_request hook", app.after_request_funcs),
        ("teardown_request hook", app.teardown_request_funcs),
        ("url_value_preprocessor", app.url_value_preprocessors),
    ):
        for hook in by_scope.get(scope, ()):
            yield kind, hook
    for by_class in app.error_handler_spec.get(scope, {}).values():
        for handler in by_class.values():
            yield "error handler", handler
    if scope is None:
        for hook in app.teardown_appcontext_funcs:
            yield "teardown_appcontext hook", hook
        for name in SIGNALS:
            for receiver in getattr(signals, name).receivers_for(app):
                yield f"{name} receiver", receiver


def _name(hook: Hook) -> str:
    return str(getattr(hook, "__qualname__", hook))
