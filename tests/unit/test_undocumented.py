"""What is used of other libraries without being documented is where it was, so an upgrade that moves it fails here."""

from __future__ import annotations

import inspect
import io
import re
from importlib import metadata
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest
from gevent.server import StreamServer
from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.http import RequestParser, wsgi
from gunicorn.workers import base_async
from gunicorn.workers.ggevent import GeventWorker
from gunicorn.workers.gthread import ThreadWorker

from tableside.server import worker
from tableside.server.accept_balancer import BalancedServer
from tableside.server.gunicorn_log import GunicornLog
from tableside.server.one_send_response import OneSendResponse
from tableside.server.undocumented import ATTRIBUTES, CHECKED_ON, NAMES, UndocumentedName
from tableside.server.worker import TablesideWorker

ROOT = Path(__file__).parents[2]
OURS = {
    GeventWorker: TablesideWorker,
    wsgi.Response: OneSendResponse,
    Logger: GunicornLog,
    StreamServer: BalancedServer,
}


@pytest.mark.parametrize("name", NAMES, ids=lambda name: name.dotted)
def test_each_name_is_where_it_was(name: UndocumentedName) -> None:
    """The dotted name resolves, and what is called or overridden there has the parameters that are counted on."""
    module, _, attribute = name.dotted.rpartition(".")
    found = getattr(resolve_name(module), attribute)
    if name.parameters is not None:
        assert tuple(inspect.signature(found).parameters) == name.parameters


@pytest.mark.parametrize("library", CHECKED_ON)
def test_the_names_were_checked_on_the_locked_version(library: str) -> None:
    """An upgrade has to look at them again; the .in file keeps out the next version that may break them."""
    assert metadata.version(library) == CHECKED_ON[library]
    wanted = (ROOT / "requirements" / "base.in").read_text()
    assert re.search(rf"^{library}(\[\w+\])?>=[\d.]+,<[\d.]+$", wanted, re.MULTILINE)


def overridden() -> list[str]:
    """What our subclasses have in place of the library's, private or public, as dotted names of the library's class."""
    found = []
    for library, ours in OURS.items():
        between = ours.__mro__[: ours.__mro__.index(library)]
        own = {name for one in between for name in vars(one) if not re.fullmatch(r"__\w+__", name)}
        found += [f"{library.__module__}.{library.__qualname__}.{name}" for name in own if hasattr(library, name)]
    return found


def test_the_list_is_complete() -> None:
    """Whatever a subclass of ours overrides is in the list, or documented (`max_accept` of gevent's servers)."""
    listed = {name.dotted for name in NAMES} | {"gevent.server.StreamServer.max_accept"}
    assert overridden()
    assert set(overridden()) <= listed


def test_overriding_methods_take_what_the_library_passes() -> None:
    """They have the same parameters by the same names."""
    for library, ours in OURS.items():
        for dotted in overridden():
            name = dotted.rpartition(".")[2]
            theirs = getattr(library, name, None)
            if dotted.startswith(f"{library.__module__}.{library.__qualname__}.") and callable(theirs):
                assert [*inspect.signature(getattr(ours, name)).parameters] == [*inspect.signature(theirs).parameters]


def test_attributes_of_instances() -> None:
    """Those that are read exist on what the libraries make."""
    cfg = Config()
    request = next(RequestParser(cfg, [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"], ("127.0.0.1", 9)))
    plain = GeventWorker(1, 1, [], None, 30, cfg, Logger(cfg))
    plain.tmp.close()
    made: dict[str, Any] = {
        "gunicorn.workers.ggevent.GeventWorker": plain,
        "gunicorn.http.wsgi.Response": wsgi.Response(request, None, cfg),
        "gunicorn.http.message.Request": request,
        "gunicorn.http.unreader.Unreader": request.unreader,
    }
    with StreamServer(("127.0.0.1", 0), lambda *_: None) as server:
        server.start()
        made["gevent.server.StreamServer"] = server
        for dotted, attributes in ATTRIBUTES.items():
            for attribute in attributes:
                assert hasattr(made[dotted], attribute), (dotted, attribute)
    assert type(request.unreader.buf) is io.BytesIO


def test_gunicorn_looks_for_what_is_replaced() -> None:
    """Its code asks for the replaced names at each request, and calls the hooks that are overridden."""
    source = inspect.getsource
    assert re.search(r"\bResponse\b", source(wsgi.create))
    assert "util.write_error(" in source(GeventWorker.handle_error)
    assert "wsgi.create(" in source(base_async.AsyncWorker.handle_request)
    assert "with self.timeout_ctx():" in source(base_async.AsyncWorker.handle)
    assert "self.server_class(" in source(GeventWorker.run)
    assert ThreadWorker.check_config.__func__ is not TablesideWorker.check_config.__func__


def test_the_worker_s_docstring_names_the_list() -> None:
    """A reader of the worker class finds it."""
    assert "tableside.server.undocumented" in (worker.__doc__ or "")
