"""nginx's logs are bounded: a large file is renamed, and nginx opens a new one."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tableside.deployment import layout
from tableside.deployment.log_rotation import rotate
from tableside.telemetry.sampling import Sampling, murmur_hash_2, percent
from tests.unit.test_deployment import free_address
from tests.waiting import wait_until

pytestmark = pytest.mark.no_greenlets


def test_a_large_file_is_renamed(tmp_path: Path) -> None:
    """The newest renamed file has the number 1, and no more than `keep` are left."""
    log = tmp_path / "nginx-access.log"
    assert not rotate(log, 10, 3), "there is no file yet"
    for number in range(6):
        log.write_text(f"{number}" * 11)
        assert rotate(log, 10, 3)
        assert not log.exists()
    assert {file.name: file.read_text()[0] for file in tmp_path.iterdir()} == {
        "nginx-access.log.1": "5", "nginx-access.log.2": "4", "nginx-access.log.3": "3",
    }  # fmt: skip
    log.write_text("x" * 10)
    assert not rotate(log, 10, 3), "10 bytes are allowed"


def test_a_file_that_cannot_be_renamed_raises_nothing(tmp_path: Path) -> None:
    """nginx then goes on writing to it."""
    log = tmp_path / "nginx-access.log"
    log.write_text("x" * 11)
    (tmp_path / "nginx-access.log.1" / "a folder in the way").mkdir(parents=True)
    assert not rotate(log, 10, 1)
    assert log.exists()


@contextmanager
def nginx_that_answers(folder: Path, http: str, location: str) -> Iterator[str]:
    """Run nginx with this configuration. Yield its address."""
    program = layout.find_nginx({})
    assert program
    address = free_address()
    (folder / "log").mkdir()
    (folder / "nginx.conf").write_text(
        "daemon off; master_process off; pid nginx.pid; error_log log/error.log;\n"
        f"events {{}}\nhttp {{ access_log off; {' '.join(f'{kind}_temp_path t{kind};' for kind in TEMPORARY)}\n{http}\n"
        f"server {{ listen {address}; {location} }} }}\n"
    )
    command = [program, "-p", str(folder), "-c", "nginx.conf", "-e", "log/error.log"]
    with subprocess.Popen(command, cwd=folder) as process:
        try:
            assert wait_until((folder / "nginx.pid").exists)
            yield address
        finally:
            process.terminate()


TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def test_nginx_and_the_workers_choose_the_same_requests(tmp_path: Path) -> None:
    """For ids of every length, `split_clients` of the real nginx and `Sampling` agree."""
    import http.client

    from tableside.deployment.nginx import PROBES_PER_CLIENT  # noqa: F401 - the module renders the same directive

    one_in, ids = 3, [("order-" * 9)[: length % 40 + 1] + str(length) for length in range(150)]
    split = f'split_clients "$http_x_request_id" $sampled {{ {percent(one_in)}% 1; * 0; }}'
    sampling = Sampling(one_in)
    with nginx_that_answers(tmp_path, split, "location / { return 200 $sampled; }") as address:
        host, _, port = address.partition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
        for request_id in ids:
            connection.request("GET", "/", headers={"X-Request-ID": request_id})
            chosen = connection.getresponse().read() == b"1"
            assert sampling.includes(request_id, 200) is chosen, request_id
        connection.close()
    assert 20 < sum(sampling.includes(request_id, 404) for request_id in ids) < 80
    assert all(sampling.includes(request_id, 500) for request_id in ids)


@pytest.mark.parametrize(("one_in", "expected"), [(1, "100.00"), (3, "33.33"), (100, "1.00"), (1_000_000, "0.01")])
def test_the_share_as_nginx_takes_it(one_in: int, expected: str) -> None:
    """nginx takes two decimals, and refuses 0.00."""
    assert percent(one_in) == expected


def test_all_or_none() -> None:
    """1 chooses every request and 0 none, but failures are always chosen."""
    assert Sampling(1).is_complete
    assert Sampling(1).includes("a", 200)
    assert not any(Sampling(0).includes(str(number), 404) for number in range(1000))
    assert Sampling(0).includes("a", 503)
    assert (murmur_hash_2(b""), murmur_hash_2(b"abcd") != murmur_hash_2(b"abc")) == (0, True)
