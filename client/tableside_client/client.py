"""The class Client. It opens one connection per call, so one instance may be used from many threads."""

from __future__ import annotations

import http.client
import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast
from urllib.parse import quote, urlsplit

from tableside_client import rows as request_rows
from tableside_client.errors import AnswerFailed, Unavailable, Unreachable, error_for
from tableside_client.rows import Array, Frame

Rows = Sequence[object] | Array | Frame
"""A sequence of rows (mappings by column name, or sequences by position), a numpy array, or a DataFrame."""

RETRIED_STATUSES = frozenset((429, 503))
"""Statuses with which the server says that it has done no work for the request."""

FIRST_WAIT_S = 0.1
"""Wait before the first retry if the answer has no Retry-After header; it doubles with each further retry."""

LONGEST_WAIT_S = 5.0


class Client:
    """Sends requests to one Tableside server.

    url: `http://host:port`, plus a path if a proxy serves Tableside below one. Raises ValueError for another form.
    timeout_s: limit for each attempt. headers: sent with every request.
    retries: how often a request is sent again that the server did not begin: connection refused, 429 or 503. The client
    waits for the time in the server's Retry-After header, at most `longest_wait_s`. Every other request is sent once.
    sleep: called with each wait in seconds; tests replace it.
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
            raise ValueError(f"url: expected http://HOST:PORT or https://HOST:PORT, got {url!r}")
        self._https = parts.scheme == "https"
        self._host, self._port, self._path = parts.hostname, parts.port, parts.path.rstrip("/")
        self.timeout_s, self.retries, self.longest_wait_s = timeout_s, retries, longest_wait_s
        self._headers = dict(headers or {})
        self._sleep = sleep

    def predict(
        self,
        model: str,
        rows: Rows,
        output: str | Sequence[str] | None = None,
        *,
        version: int | str | None = None,
    ) -> list[Any]:
        """Return one prediction per row: a value, or a list of values for an output such as `predict_proba`.

        output: name of the output; None is the model's default, usually `predict`. For a sequence of names each
        prediction is a dict with one value for each name. version: a number or an alias; None is the version that the
        server chooses. Raises TypeError or ValueError for rows that cannot be sent, RequestFailed (with the invalid
        cells in `errors`), Unavailable, ServerFailed or Unreachable.
        """
        body = request_rows.body(rows)
        names = () if output is None or isinstance(output, str) else tuple(output)
        if isinstance(output, str):
            body["signature_name"] = output
        elif output is not None and not names:
            raise ValueError("output: expected the name of an output, or at least one name in a sequence")
        query = f"?output={quote(','.join(names), safe=',')}" if names else ""
        answer = self._request("POST", f"/v1/models/{_spec(model, version)}:predict{query}", body)
        return request_rows.answered(answer["outputs" if "inputs" in body else "predictions"], names)

    def probabilities(
        self, model: str, rows: Rows, output: str = "predict_proba", *, version: int | str | None = None
    ) -> list[dict[Any, float]]:
        """Return for each row a dict from class to probability, in the order of the estimator's `classes_`.

        output: the output whose columns are classes; `decision_function` of several classes is another. Raises what
        `predict` raises; RequestFailed also if the model's output has no class names.
        """
        body = request_rows.body(rows)
        path = f"/v1/models/{_spec(model, version)}:predict?output={quote(output, safe='')}&classes=true"
        answer = self._request("POST", path, body)
        found = cast(list[list[float]], answer["outputs" if "inputs" in body else "predictions"])
        return [dict(zip(answer["classes"][output], row, strict=True)) for row in found]

    def ready(self, model: str | None = None) -> bool:
        """Return whether the server, or one model, is ready for predictions. Sends one request and never retries.

        Return False also if the server cannot be reached. Raises RequestFailed for an unknown model.
        """
        path = "/v2/health/ready" if model is None else f"/v2/models/{_spec(model)}/ready"
        try:
            self._send("GET", path, None)
        except (Unavailable, Unreachable):
            return False
        return True

    def models(self) -> list[str]:
        """Return the names of all models."""
        return cast(list[str], self._request("GET", "/v2/models")["models"])

    def metadata(self, model: str, *, version: int | str | None = None) -> dict[str, Any]:
        """Return the metadata of a model: `inputs`, `outputs`, `versions` and `properties`."""
        return self._request("GET", f"/v2/models/{_spec(model, version)}")

    def openapi(self, model: str) -> dict[str, Any]:
        """Return the OpenAPI document of one model."""
        return self._request("GET", f"/v2/models/{_spec(model)}/openapi.json")

    def _request(self, method: str, path: str, body: Mapping[str, object] | None = None) -> dict[str, Any]:
        content = None if body is None else json.dumps(body, allow_nan=False).encode()
        for attempt in range(self.retries + 1):
            try:
                return self._send(method, path, content)
            except (Unavailable, Unreachable) as problem:
                if attempt == self.retries or not _was_not_begun(problem):
                    raise
                self._sleep(self._wait_s(problem, attempt))
        raise AssertionError("the last attempt returns or raises")

    def _wait_s(self, problem: Unavailable | Unreachable, attempt: int) -> float:
        retry_after_s = problem.retry_after_s if isinstance(problem, Unavailable) else None
        wait_s = FIRST_WAIT_S * 2**attempt if retry_after_s is None else retry_after_s
        return float(min(self.longest_wait_s, wait_s))

    def _send(self, method: str, path: str, content: bytes | None) -> dict[str, Any]:
        connection_class = http.client.HTTPSConnection if self._https else http.client.HTTPConnection
        connection = connection_class(self._host, self._port, timeout=self.timeout_s)
        headers = {"Accept": "application/json", "X-Request-ID": uuid.uuid4().hex, **self._headers}
        if content is not None:
            headers["Content-Type"] = "application/json"
        try:
            connection.request(method, self._path + path, content, headers)
            response = connection.getresponse()
            text, status, answer_headers = response.read(), response.status, response.headers
        except (OSError, http.client.HTTPException) as problem:
            message = f"no answer from {self._host}:{connection.port}: {str(problem) or type(problem).__name__}"
            raise Unreachable(message) from problem
        finally:
            connection.close()
        answer = _json(text)
        if status != 200:
            request_id, retry_after = answer_headers.get("X-Request-ID", ""), answer_headers.get("Retry-After")
            raise error_for(status, answer, request_id, _seconds(retry_after))
        return answer


def _was_not_begun(problem: Unavailable | Unreachable) -> bool:
    """Return whether the server certainly did no work for the request, so that it may be sent again."""
    if isinstance(problem, AnswerFailed):
        return problem.status in RETRIED_STATUSES
    return isinstance(problem.__cause__, ConnectionRefusedError)


def _spec(model: str, version: int | str | None = None) -> str:
    name = quote(model, safe="@")
    return name if version is None else f"{name}/versions/{quote(str(version), safe='')}"


def _json(text: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(text)
    except ValueError:  # a proxy in between may answer HTML; its beginning tells more than that it is not JSON
        return {"error": text[:200].decode("utf-8", "replace")}
    return answer if isinstance(answer, dict) else {"error": "the answer is not a JSON object"}


def _seconds(text: str | None) -> float | None:
    try:
        return None if text is None else max(0.0, float(text))
    except ValueError:
        return None
