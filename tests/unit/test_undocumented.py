"""Undocumented names of other libraries still exist, so that an upgrade which changes one fails here."""

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
from gunicorn.arbiter import Arbiter
from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.http import RequestParser, wsgi
from gunicorn.workers import base_async
from gunicorn.workers.ggevent import GeventWorker
from gunicorn.workers.gthread import ThreadWorker

from tableside.server import gunicorn_log, worker
from tableside.server.accept_balancer import BalancedServer
from tableside.server.gunicorn_log import GunicornLog
from tableside.server.one_send_response import OneSendResponse
from tableside.server.undocumented import ATTRIBUTES, CHECKED_ON, NAMES, UndocumentedName
from tableside.server.worker import TablesideWorker

ROOT = Path(__file__).parents[2]
SUBCLASSES = {
    GeventWorker: TablesideWorker,
    wsgi.Response: OneSendResponse,
    Logger: GunicornLog,
    StreamServer: BalancedServer,
}


@pytest.mark.parametrize("name", NAMES, ids=lambda name: name.dotted)
def test_each_name_is_where_it_was(name: UndocumentedName) -> None:
    """The dotted name resolves, and a function has the parameters that the list gives."""
    module, _, attribute = name.dotted.rpartition(".")
    found = getattr(resolve_name(module), attribute)
    if name.parameters is not None:
        assert tuple(inspect.signature(found).parameters) == name.parameters


@pytest.mark.parametrize("library", CHECKED_ON)
def test_the_names_were_checked_on_the_locked_version(library: str) -> None:
    """The installed version is the one in CHECKED_ON, and base.in excludes versions that may change a name."""
    assert metadata.version(library) == CHECKED_ON[library]
    wanted = (ROOT / "requirements" / "base.in").read_text()
    assert re.search(rf"^{library}(\[\w+\])?>=[\d.]+,<[\d.]+$", wanted, re.MULTILINE)


def overridden() -> list[str]:
    """The dotted names of the libraries' methods that the project's subclasses override."""
    found = []
    for library, subclass in SUBCLASSES.items():
        between = subclass.__mro__[: subclass.__mro__.index(library)]
        own = {name for one in between for name in vars(one) if not re.fullmatch(r"__\w+__", name)}
        found += [f"{library.__module__}.{library.__qualname__}.{name}" for name in own if hasattr(library, name)]
    return found


def test_the_list_is_complete() -> None:
    """Each overridden name is in the list, except `max_accept` of gevent's servers, which is documented."""
    listed = {name.dotted for name in NAMES} | {"gevent.server.StreamServer.max_accept"}
    assert overridden()
    assert set(overridden()) <= listed


def test_overriding_methods_have_the_parameters_of_the_library() -> None:
    """The parameters have the same names in the same order."""
    for library, subclass in SUBCLASSES.items():
        for dotted in overridden():
            name = dotted.rpartition(".")[2]
            theirs = getattr(library, name, None)
            if dotted.startswith(f"{library.__module__}.{library.__qualname__}.") and callable(theirs):
                assert [*inspect.signature(getattr(subclass, name)).parameters] == [
                    *inspect.signature(theirs).parameters
                ]


def test_attributes_of_instances() -> None:
    """The attributes that are read exist on the objects that the libraries make."""
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


def test_gunicorn_looks_up_the_replaced_names() -> None:
    """gunicorn's code looks the replaced names up at each request, and calls the hooks that are overridden."""
    source = inspect.getsource
    assert re.search(r"\bResponse\b", source(wsgi.create))
    assert "util.write_error(" in source(GeventWorker.handle_error)
    assert "wsgi.create(" in source(base_async.AsyncWorker.handle_request)
    assert f'"{gunicorn_log.SIGNALLED}"' in source(Arbiter.reap_workers)
    assert f'"{gunicorn_log.EXITED}"' in source(Arbiter.reap_workers)
    assert "with self.timeout_ctx():" in source(base_async.AsyncWorker.handle)
    assert "self.server_class(" in source(GeventWorker.run)
    assert ThreadWorker.check_config.__func__ is not TablesideWorker.check_config.__func__


def test_the_docstring_of_the_worker_names_the_list() -> None:
    """The module of the worker class refers to the list."""
    assert "tableside.server.undocumented" in (worker.__doc__ or "")
