"""The client. One connection a call; safe to use from many threads."""

from __future__ import annotations

import http.client
import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

from tableside_client import rows as spelled
from tableside_client.errors import AnswerFailed, Unavailable, Unreachable, failed

Rows = Sequence[Mapping[str, Any]] | Sequence[Sequence[Any]] | Any
"""Rows by column name or by position; a numpy array; a DataFrame."""
AGAIN = frozenset((429, 503))
FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 5.0


class Client:
    """Asks one Tableside.

    url: `http://host:port`, with a path if a proxy has one. timeout_s: for each try. retries: how often a request that
    was refused (connection refused, 429, 503) is sent again; it waits as long as the server's Retry-After says, within
    `longest_wait_s`. Nothing else is sent twice.
    """

    def __init__(
        self,
        url: str,
        timeout_s: float = 30.0,
        *,
        retries: int = 3,
        longest_wait_s: float = LONGEST_WAIT_S,
        headers: Mapping[str, str] | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"expected http://host:port, got {url!r}")
        self._https = parts.scheme == "https"
        self._host, self._port, self._path = parts.hostname, parts.port, parts.path.rstrip("/")
        self.timeout_s, self.retries, self.longest_wait_s = timeout_s, retries, longest_wait_s
        self._headers = dict(headers or {})
        self._sleep = sleep

    def predict(
        self, model: str, rows: Rows, output: str | None = None, *, version: int | str | None = None
    ) -> list[Any]:
        """One prediction a row. output: `predict_proba`, say; without one, the model's own default (`predict`).

        version: a number or an alias; without one, the version served by default. Raises RequestFailed with the bad
        places of a request, Unavailable, ServerFailed or Unreachable.
        """
        body = spelled.body(rows)
        if output is not None:
            body["signature_name"] = output
        found = self._ask("POST", f"/v1/models/{_spec(model, version)}:predict", body)
        answers: list[Any] = found["outputs" if "inputs" in body else "predictions"]
        return answers

    def ready(self, model: str | None = None) -> bool:
        """Whether the server, or one model, takes requests. False also where nobody answers; it does not wait."""
        path = "/v2/health/ready" if model is None else f"/v2/models/{_spec(model)}/ready"
        try:
            self._once("GET", path, None)
        except (Unavailable, Unreachable):
            return False
        return True

    def models(self) -> list[str]:
        """The names of all models."""
        names: list[str] = self._ask("GET", "/v2/models")["models"]
        return names

    def metadata(self, model: str, *, version: int | str | None = None) -> dict[str, Any]:
        """A model's inputs, outputs, versions and properties."""
        return self._ask("GET", f"/v2/models/{_spec(model, version)}")

    def openapi(self, model: str) -> dict[str, Any]:
        """The OpenAPI document of one model."""
        return self._ask("GET", f"/v2/models/{_spec(model)}/openapi.json")

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The answer, asked for again while the server refuses and tries are left."""
        content = None if body is None else json.dumps(body, allow_nan=False).encode()
        for tried in range(self.retries + 1):
            try:
                return self._once(method, path, content)
            except (Unavailable, Unreachable) as problem:
                if tried == self.retries or not _refused(problem):
                    raise
                self._sleep(self._wait_s(problem, tried))
        raise AssertionError("the last try answers or raises")

    def _wait_s(self, problem: Unavailable | Unreachable, tried: int) -> float:
        asked = problem.retry_after_s if isinstance(problem, Unavailable) else None
        return float(min(self.longest_wait_s, FIRST_WAIT_S * 2**tried if asked is None else asked))

    def _once(self, method: str, path: str, content: bytes | None) -> dict[str, Any]:
        kind = http.client.HTTPSConnection if self._https else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=self.timeout_s)
        headers = {"Accept": "application/json", "X-Request-ID": uuid.uuid4().hex, **self._headers}
        if content is not None:
            headers["Content-Type"] = "application/json"
        try:
            connection.request(method, self._path + path, content, headers)
            response = connection.getresponse()
            text, status, found = response.read(), response.status, response.headers
        except (OSError, http.client.HTTPException) as problem:
            raise Unreachable(f"no answer from {self._host}:{connection.port}: {problem}") from problem
        finally:
            connection.close()
        answer = _json(text)
        if status != 200:
            raise failed(status, answer, found.get("X-Request-ID", ""), _seconds(found.get("Retry-After")))
        return answer


def _refused(problem: Unavailable | Unreachable) -> bool:
    """Whether the server surely did no work for the request."""
    if isinstance(problem, AnswerFailed):
        return problem.status in AGAIN
    return isinstance(problem.__cause__, ConnectionRefusedError)


def _spec(model: str, version: int | str | None = None) -> str:
    name = quote(model, safe="@")
    return name if version is None else f"{name}/versions/{quote(str(version), safe='')}"


def _json(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {"error": text[:200].decode("utf-8", "replace")}
    return found if isinstance(found, dict) else {"error": "the answer is no JSON object"}


def _seconds(text: str | None) -> float | None:
    try:
        return None if text is None else max(0.0, float(text))
    except ValueError:
        return None
