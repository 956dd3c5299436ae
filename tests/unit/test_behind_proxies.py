"""Behind other proxies, with the real nginx and the application: addresses, prefixes, redirects, compression, URLs."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tableside.deployment import layout
from tests.nginx_fronts import CALLER, PREDICT, PROXY, Front, front, run_folder, serving, sums_app

pytestmark = [pytest.mark.no_greenlets, pytest.mark.processes]
ROWS = b'{"instances": [[1, 2]]}'


@pytest.fixture(scope="module")
def behind() -> Iterator[list[Front]]:
    """Both planes, behind a proxy at PROXY that publishes them below /ml, and three requests of each client at once."""
    with run_folder() as run_dir:
        settings, app = sums_app(
            run_dir, trusted_proxies=f"{PROXY},10.0.0.0/8", path_prefix="/ml", max_connections_per_client="3"
        )
        with front(settings, serving(app), (layout.DATA, layout.ADMIN)) as found:
            yield found


FORWARDED = (
    ("203.0.113.7", PROXY, "203.0.113.7"),
    ("198.51.100.1, 203.0.113.7", PROXY, "203.0.113.7"),
    ("203.0.113.7, 10.1.2.3", PROXY, "203.0.113.7"),
    ("2001:db8::7", PROXY, "2001:db8::7"),
    ("not an address", PROXY, PROXY),
    ("", PROXY, PROXY),
    ("203.0.113.7", CALLER, CALLER),
    (PROXY, CALLER, CALLER),
)
"""What X-Forwarded-For says, who sent it, and the client."""


def test_the_log_has_the_address_of_the_client(behind: list[Front]) -> None:
    """It is the last one in X-Forwarded-For that is no trusted proxy's, and counts from trusted proxies only."""
    for at, (forwarded, source, _) in enumerate(FORWARDED):
        answer = behind[0].ask("/v2", source=source, X_Forwarded_For=forwarded, X_Request_ID=f"forwarded-{at}")
        assert answer.status == 200
    for at, (forwarded, source, client) in enumerate(FORWARDED):
        line = behind[0].logged(f"forwarded-{at}")
        assert (line["client"], line["proxy"]) == (client, source), forwarded


def test_each_client_behind_a_proxy_has_its_own_limit(behind: list[Front]) -> None:
    """A client with three requests open is refused another; others are not, nor one that only says it was another."""
    # nginx counts a request before it asks for its body, so after a 100 none of these can be the one that is refused.
    head = (
        f"POST {PREDICT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\nExpect: 100-continue\r\nX-Forwarded-For: "
    )
    with ExitStack() as open_requests:
        for source, name in ((PROXY, "203.0.113.1"), (CALLER, "203.0.113.9")) * 3:
            client = open_requests.enter_context(behind[0].connect(source))
            client.sendall(f"{head}{name}\r\n\r\n".encode())
            assert client.recv(100).startswith(b"HTTP/1.1 100 ")

        def status(name: str, source: str = PROXY) -> int:
            return behind[0].ask("/v2", source=source, X_Forwarded_For=name).status

        assert status("203.0.113.1") == 429
        assert status("203.0.113.8", CALLER) == 429, "the address of its connection counts"
        assert status("203.0.113.2") == status("203.0.113.9") == 200


@pytest.mark.parametrize(
    ("stated", "source", "base"),
    [
        (None, PROXY, "/ml"),
        ("/team/a", PROXY, "/team/a"),
        ("/team/a/", PROXY, "/team/a"),
        ("/outer, /inner", PROXY, "/outer/inner"),
        ("/", PROXY, "/"),
        ("/x", CALLER, "/ml"),
        ("//evil.example", PROXY, "/ml"),
        ("https://evil.example", PROXY, "/ml"),
        ('/a"b', PROXY, "/ml"),
        ("/" + "a" * 300, PROXY, "/ml"),
    ],
)
def test_documents_and_redirects_have_the_prefix(
    behind: list[Front], stated: str | None, source: str, base: str
) -> None:
    """That of a trusted proxy, or the setting's. Neither they nor a spoofed scheme or host make an absolute address."""
    headers = {"X_Forwarded_Prefix": stated} if stated else {}
    headers |= {"X_Forwarded_Proto": "https", "X_Forwarded_Host": "evil.example", "Forwarded": "host=evil.example"}
    for one in behind:
        for path in ("/openapi.json", "/v2/models/sums/openapi.json"):
            document = one.ask(path, source=source, **headers)
            assert document.json["servers"] == [{"url": base}]
            assert b"evil.example" not in document.content
        moved = one.ask("//v2///models?a=b%20c", source=source, **headers)
        assert (moved.status, moved.said["location"]) == (308, f"{base.rstrip('/')}/v2/models?a=b%20c")
        assert one.ask("/docs/", source=source, **headers).said["location"] == "../docs"


def test_a_proxy_may_leave_the_prefix_in_the_path(behind: list[Front]) -> None:
    """Paths below `server.path_prefix` are those without it, on each location of nginx; other prefixes are no paths."""
    data, control = behind
    for one in behind:
        for path in ("/v2", "/docs", "/ping", "/v2/health/live", "/v2/models/sums/openapi.json", "/"):
            assert one.ask(f"/ml{path}").content == one.ask(path).content, path
            assert one.ask(f"/ml{path}").status == 200, path
        assert one.ask(f"/ml{PREDICT}", "POST", ROWS).json == {"predictions": [3.0]}
        assert one.ask("/ml").json == {"status": "alive"}
        for path in ("/mlx/v2", "/ml/ml/v2", "/other/v2"):
            assert one.ask(path).status == 404, path
        assert one.ask("/ml//v2//models").said["location"] == "/ml/v2/models"
    assert (data.ask("/ml/admin/api/models").status, control.ask("/ml/admin/api/models").status) == (404, 401)
    assert control.ask("/ml/v2/repository/index", "POST", b"").status == 401


def test_a_url_has_a_longest_length(behind: list[Front]) -> None:
    """8000 bytes are read and one more is 414, by whichever part of the server counts it, and names the setting."""
    for one in behind:
        for path, status in (("/v2?", 200), ("/ping?", 200), ("/nowhere?", 404)):
            assert one.ask(path + "a" * (8000 - len(path))).status == status
            for length in (8001, 8160, 9000):
                answer = one.ask(path + "a" * (length - len(path)))
                assert (answer.status, answer.json["status"]) == (414, 414)
                assert answer.said["x-request-id"] == answer.json["instance"]
                assert "server.max_url_bytes (8000 bytes)" in answer.json["error"]


BODIES: dict[str, tuple[str, bytes, dict[str, str]]] = {
    "json": (PREDICT, json.dumps({"instances": [[1, 2]] * 2000}).encode(), {}),
    "csv": ("/invocations", b"1,2\n" * 2000, {"Content_Type": "text/csv; header=absent", "Accept": "text/csv"}),
    "binary": (
        "/v2/models/sums/infer",
        json.dumps({
            "inputs": [{"name": "x", "shape": [2000, 2], "datatype": "FP64", "data": [1, 2] * 2000}],
            "outputs": [{"name": "predict", "parameters": {"binary_data": True}}],
        }).encode(),
        {},
    ),
    "a file": (PREDICT, json.dumps({"instances": [[1, 2]] * 70_000}).encode(), {}),
}  # fmt: skip


@pytest.mark.parametrize("name", BODIES)
def test_every_kind_of_answer_is_compressed(behind: list[Front], name: str) -> None:
    """For a client that accepts it; Vary says so, also where the answer is not compressed."""
    path, body, headers = BODIES[name]
    plain = behind[0].ask(path, "POST", body, **headers)
    zipped = behind[0].ask(path, "POST", body, Accept_Encoding="gzip", **headers)
    assert (plain.status, zipped.status) == (200, 200), plain.content
    assert "content-encoding" not in plain.said
    assert zipped.said["content-encoding"] == "gzip"
    assert len(zipped.content) < len(plain.content) / 10
    assert gzip.decompress(zipped.content) == plain.content
    assert plain.said["vary"] == zipped.said["vary"] == "Accept-Encoding"


def test_vary_depends_on_the_path_and_not_on_the_length(behind: list[Front]) -> None:
    """Short answers, HEAD and 304 have it as long answers have; a picture, which is never compressed, has none."""
    document = behind[0].ask("/openapi.json")
    tag = document.said["etag"]
    picture = next(part for part in behind[0].ask("/docs").content.decode().split('"') if part.endswith(".png"))
    for said, expected in (
        (document.said, True),
        (behind[0].ask("/openapi.json", "HEAD").said, True),
        (behind[0].ask("/openapi.json", If_None_Match=tag).said, True),
        (behind[0].ask("/v2").said, True),
        (behind[0].ask("/nowhere").said, True),
        (behind[0].ask(f"/{picture}").said, False),
    ):
        assert said.get("vary") == ("Accept-Encoding" if expected else None), said
    assert behind[0].ask("/openapi.json", If_None_Match=tag).status == 304
