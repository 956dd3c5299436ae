"""A running server as commands speak with it: its admin API, on another machine or on this one."""

from __future__ import annotations

import http.client
import os
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar
from urllib.parse import SplitResult, quote, urlencode, urlsplit

import click
import msgspec

from tableside.deployment import own_connection, running_stack
from tableside.deployment.running_stack import RunningStack
from tableside.errors import StackError
from tableside.setting_texts import is_loopback
from tableside.settings import Settings

URL_VARIABLE = "TABLESIDE_URL"
KEY_VARIABLE = "TABLESIDE_KEY"
TIMEOUT_S = 130.0
"""How long an answer may take: longer than nginx waits for it."""
WAIT_S = 20
"""How long each request waits for the end of an operation."""
Content = dict[str, object]
Command = TypeVar("Command", bound=Callable[..., None])


class Readable(Protocol):
    """A body that is sent piece by piece."""

    def read(self, size: int = -1, /) -> bytes:
        """Return up to `size` bytes."""


class Answer(msgspec.Struct, frozen=True):
    """What a server answers: the status, the object in the body, and the headers by lower-case name."""

    status: int
    content: Content
    headers: Mapping[str, str] = {}

    def or_raise(self) -> Content:
        """Return the object, or raise StackError with the server's text and the reasons of its workers."""
        if self.status < 400:
            return self.content
        text = str(self.content.get("error", f"the server answered with status {self.status}"))
        reasons = self.content.get("reasons")
        lines = [str(reason) for reason in reasons] if isinstance(reasons, list) else []
        raise StackError("; ".join([text, *lines]))


class Remote:
    """The admin API of one server. The key goes into a header, and into no message."""

    def __init__(
        self, name: str, prefix: str, key: str, connect: Callable[[], http.client.HTTPConnection],
        hint: str = "Is it the address of the admin plane?",
    ) -> None:  # fmt: skip
        """name: the server's, for messages. prefix: the path below which it is. connect: opens a connection. hint: what
        may be wrong when it does not answer.
        """
        self.name, self._prefix, self._key, self._connect, self._hint = name, prefix, key, connect, hint

    def ask(
        self, method: str, path: str, query: Mapping[str, str] | None = None, *, content: object = None,
        body: Readable | None = None, size: int = 0, headers: Mapping[str, str] | None = None,
    ) -> Answer:  # fmt: skip
        """Send a request and return the answer. path: below `/admin/api/`, with parts that `part` has quoted.

        content: is sent as JSON. body, size: a body that is sent piece by piece. Raises StackError without an answer.
        """
        url = f"{self._prefix}/admin/api/{path}" + (f"?{urlencode(query)}" if query else "")
        sent = {"Authorization": f"Bearer {self._key}", **(headers or {})}
        data: object = body
        if content is not None:
            data, sent["Content-Type"] = msgspec.json.encode(content), "application/json"
        if body is not None:
            sent = {"Content-Type": "application/x-tar", **sent, "Content-Length": str(size)}
        with self._connected() as connection:
            try:
                connection.request(method, url, data, sent)  # type: ignore[arg-type]
                return _answer(connection.getresponse())
            except BrokenPipeError:  # it has refused the body before it had read all of it
                return self._early(connection)

    def get_text(self, path: str) -> str:
        """Return the text that the control plane answers to GET of a path, such as `metrics`. Raises StackError."""
        with self._connected() as connection:
            connection.request("GET", f"{self._prefix}/{path}", headers={"Authorization": f"Bearer {self._key}"})
            response = connection.getresponse()
            if response.status >= 400:
                _answer(response).or_raise()
            return response.read().decode(errors="replace")

    @contextmanager
    def _connected(self) -> Iterator[http.client.HTTPConnection]:
        """Open a connection, and close it at the end. What goes wrong with it is raised as StackError."""
        connection = self._connect()
        try:
            yield connection
        except (OSError, http.client.HTTPException, msgspec.MsgspecError) as problem:
            raise StackError(f"no answer from {self.name}: {problem}. {self._hint}") from problem
        finally:
            connection.close()

    def _early(self, connection: http.client.HTTPConnection) -> Answer:
        try:
            return _answer(connection.getresponse())
        except (OSError, http.client.HTTPException, msgspec.MsgspecError) as problem:
            raise StackError(f"{self.name} has closed the connection while the body was sent: {problem}") from problem


def _answer(response: http.client.HTTPResponse) -> Answer:
    content = msgspec.json.decode(response.read(), type=Content)
    return Answer(response.status, content, {name.lower(): value for name, value in response.getheaders()})


def objects(value: object) -> list[Content]:
    """Return the objects of a list in an answer; none if it is no list."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def part(text: str) -> str:
    """Return a name as one part of a path."""
    return quote(text, safe="")


def remote_options(command: Command) -> Command:
    """Add `--to URL` and `--key-file FILE` to a command, which gets them as `to` and `key_file`."""
    command = click.option(
        "--key-file", type=click.Path(path_type=Path), help=f"File with the key for --to. Default: ${KEY_VARIABLE}."
    )(command)
    return click.option(
        "--to", metavar="URL", envvar=URL_VARIABLE,
        help=f"Admin plane of a server, such as https://models.example.com:8081. Default: ${URL_VARIABLE}.",
    )(command)  # fmt: skip


def of_url(url: str, key_file: Path | None, timeout_s: float = TIMEOUT_S) -> Remote:
    """Return the server at a URL. Raises StackError for a URL or a key that is not usable.

    timeout_s: how long an answer may take.
    """
    found = _parsed(url)
    key = _read_key(key_file)
    host, port = str(found.hostname), found.port
    if found.scheme == "https":
        context = ssl.create_default_context()
        return Remote(
            url, found.path.rstrip("/"), key,
            lambda: http.client.HTTPSConnection(host, port, timeout=timeout_s, context=context),
        )  # fmt: skip
    if not is_loopback(host):
        click.secho(
            f"warning: {url} has no TLS: everybody on the way can read the key", err=True, bold=True, fg="yellow"
        )
    return Remote(url, found.path.rstrip("/"), key, lambda: http.client.HTTPConnection(host, port, timeout=timeout_s))


def _parsed(url: str) -> SplitResult:
    try:
        found = urlsplit(url)
        usable = found.scheme in ("http", "https") and bool(found.hostname) and (found.port or 1) > 0
    except ValueError:
        usable = False
    if not usable or found.query or found.fragment:
        raise StackError(f"{url!r} is no address of a server. Write https://HOST:PORT")
    if found.username is not None or found.password is not None:
        raise StackError("the address has a user or a password in it. The key comes from --key-file, or the variable")
    return found


def _read_key(key_file: Path | None) -> str:
    if key_file is not None:
        try:
            key = key_file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as problem:
            raise StackError(f"cannot read the key in {key_file}: {problem}") from problem
    else:
        key = os.environ.get(KEY_VARIABLE, "").strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        where = str(key_file) if key_file is not None else f"the variable {KEY_VARIABLE}"
        raise StackError(f"there is no key in {where}. Make one on the server: `tableside keys add NAME --scope admin`")
    return key


def of_stack(settings: Settings, stack: RunningStack, timeout_s: float = TIMEOUT_S) -> Remote:
    """Return the stack of the run folder on this host, with the key that lies there. Raises StackError without it.

    timeout_s: how long an answer may take.
    """
    key_file = Path(stack.run_dir) / "admin.key"
    try:
        key = key_file.read_text(encoding="ascii").strip()
    except OSError:
        raise StackError(f"cannot read {key_file}: {running_stack.start_hint(settings)}") from None
    name = f"{stack.admin_listen} (server.admin_listen)"
    connect = partial(own_connection.connect, settings, stack.admin_listen, timeout_s)
    return Remote(name, "", key, connect, "Is the stack running?")


def wait_for_end(server: Remote, content: Content, step: Callable[[str], None]) -> Content:
    """Wait until the operation that an answer names is over, and return its result. Raises StackError if it failed."""
    operation = content.get("operation")
    while isinstance(operation, dict) and operation.get("state") == "running":
        step(str(operation.get("step") or "waiting for the server"))
        path = f"operations/{part(str(operation.get('id')))}"
        operation = server.ask("GET", path, {"wait": str(WAIT_S)}).or_raise()
    if not isinstance(operation, dict):
        raise StackError(f"{server.name} answered without an operation")
    if operation.get("state") != "done":
        Answer(int(operation.get("status") or 500), operation).or_raise()
    result = operation.get("result")
    return dict(result) if isinstance(result, dict) else {}
