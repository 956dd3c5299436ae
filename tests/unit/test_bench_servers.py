"""The benchmark's servers: separate environments, equal requests, and a stop that ends every process."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import environments, fronts, models, wires
from benchmarks.compare import chosen
from benchmarks.contestants import CONTESTANTS, DIRECT, NGINX, NGINX_KEPT, Place
from benchmarks.environments import PEERS, NotInstalled
from benchmarks.models import Model
from benchmarks.processes import Server, clean_environ, family, pss_mb
from benchmarks.trial import Plan, loads_of

pytestmark = pytest.mark.no_greenlets

ARRAYS = Model("logistic", models.ARRAY, Path("m.joblib"), Path("models"), [[1.5, 2.0], [3.0, 4.0]], [0, 1])
TABLE = Model("mixed", models.TABLE, Path("m.joblib"), Path("models"), [{"n": 1, "x": 0.5, "s": "a", "b": True}], [2])


@pytest.mark.parametrize("peer", sorted({each.environment for each in CONTESTANTS.values() if each.environment}))
def test_each_peer_documents_its_tuning(peer: str) -> None:
    """The README of a peer names its workers and threads, and its requirements hold no index address."""
    readme = (PEERS / peer / "README.md").read_text()
    assert re.search(r"2 (parallel |inference )?workers|--workers 2", readme)
    assert peer == "bare" or "threads 1" in readme
    assert "://" not in (PEERS / peer / "requirements.txt").read_text()


@pytest.mark.parametrize(
    ("wire", "path", "answer"),
    [
        (wires.tableside, "/v1/models/logistic:predict", {"predictions": [1]}),
        (wires.by_hand, "/predict", {"predictions": [1]}),
        (wires.bento, "/predict", [1]),
        (wires.mlflow, "/invocations", {"predictions": [1]}),
        (wires.mlserver, "/v2/models/logistic/infer", {"outputs": [{"name": "predict", "data": [1]}]}),
    ],
)
def test_each_protocol_asks_one_row_a_body_and_reads_the_label(wire: Any, path: str, answer: Any) -> None:
    """Each protocol has one body per row, with the estimator's answer to compare with."""
    found = wire(ARRAYS)
    assert found.path == path
    assert [b"1.5" in body for body in found.bodies] == [True, False]
    assert found.expected == [[0], [1]]
    assert found.read(json.dumps(answer).encode(), {}) == [1]


def test_a_table_goes_in_each_protocols_own_form() -> None:
    """A table becomes objects, dataframe_split, or one tensor per column with its datatype."""
    assert json.loads(wires.tableside(TABLE).bodies[0]) == {"instances": TABLE.rows}
    assert json.loads(wires.mlflow(TABLE).bodies[0])["dataframe_split"]["columns"] == ["n", "x", "s", "b"]
    columns = json.loads(wires.mlserver(TABLE).bodies[0])["inputs"]
    assert [column["datatype"] for column in columns] == ["INT64", "FP64", "BYTES", "BOOL"]


def test_many_rows_are_the_same_as_json_and_as_bytes() -> None:
    """The JSON and the binary body hold the same rows, and a binary answer is split at the length of its head."""
    found = wires.many_rows(ARRAYS, 5)
    listed = json.loads(found["json"].bodies[0])["inputs"][0]
    binary = found["binary"]
    length = int(binary.headers[wires.HEADER])
    assert np.frombuffer(binary.bodies[0][length:], "<f8").tolist() == listed["data"]
    assert binary.expected == found["json"].expected == [[0, 1, 0, 1, 0]]
    head = json.dumps({"outputs": [{"name": "predict", "datatype": "INT64"}]}).encode()
    answer = head + np.array([0, 1, 0], dtype="<i8").tobytes()
    assert binary.read(answer, {wires.HEADER: str(len(head))}) == [0, 1, 0]


def test_a_family_is_descendants_and_session() -> None:
    """A family holds descendants, also those in other sessions, and the members of the session."""
    table = {10: (1, 10), 11: (10, 11), 12: (11, 12), 13: (1, 10), 14: (1, 14)}
    assert family(10, table) == {10, 11, 12, 13}


@pytest.mark.processes
@pytest.mark.slow
def test_a_server_ends_with_everything_it_started(tmp_path: Path) -> None:
    """`stop` also ends a child that ignores SIGTERM and has its own session."""
    script = tmp_path / "server.sh"
    script.write_text("setsid sh -c 'trap \"\" TERM; while :; do sleep 0.1; done' & exec sleep 60\n")
    server = Server(["sh", str(script)], tmp_path, clean_environ(), tmp_path / "log")
    deadline_at_s = time.monotonic() + 20
    while len(server.pids()) < 2 and time.monotonic() < deadline_at_s:
        time.sleep(0.02)
    pids = server.pids()
    assert len(pids) >= 2
    assert pss_mb(pids) > 0
    server.stop()
    assert not server.running()
    assert not any(_runs(pid) for pid in pids)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_contestants_environment_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server gets none of the caller's Python and Tableside settings, and one thread per library."""
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    monkeypatch.setenv("TABLESIDE__SERVER__WORKERS", "9")
    environ = clean_environ(PORT="1")
    assert not {"PYTHONPATH", "TABLESIDE__SERVER__WORKERS"} & environ.keys()
    assert (environ["OMP_NUM_THREADS"], environ["PORT"]) == ("1", "1")


@pytest.mark.processes
@pytest.mark.slow
def test_requirements_that_cannot_be_installed_raise(tmp_path: Path) -> None:
    """NotInstalled holds the installer's message, and the next run tries again."""
    wanted = tmp_path / "requirements.txt"
    wanted.write_text("no such requirement\n")
    for _ in range(2):
        with pytest.raises(NotInstalled, match="such"):
            environments.ensure("peer", wanted, {}, tmp_path / "envs")


def test_the_versions_of_this_environment_bind_the_peers() -> None:
    """A requirement without a version is pinned to Tableside's version; other requirements are left alone."""
    here = environments.versions(Path(sys.executable))
    assert here["scikit-learn"] == __import__("sklearn").__version__
    found = environments.constraints("mlserver==1.7.1\nuvloop<0.22\nscikit-learn\ngunicorn[gevent]\nlitserve\n", here)
    assert found == f"gunicorn=={here['gunicorn']}\nscikit-learn=={here['scikit-learn']}\n"


def test_nginx_before_a_peer(tmp_path: Path) -> None:
    """nginx keeps connections to a peer; the bare server also gets a port with a new connection per request."""
    place = Place(tmp_path, tmp_path, ARRAYS, 4000)
    peer = fronts.configuration(place, {NGINX: 4001}, one_each=False)
    assert "keepalive 64" in peer
    assert "listen 127.0.0.1:4001" in peer
    bare = fronts.configuration(place, {NGINX: 4001, NGINX_KEPT: 4002}, one_each=True)
    assert bare.index("Connection close") < bare.index("listen 127.0.0.1:4002")
    assert ("user root;" in bare) == (os.geteuid() == 0)


def test_which_loads_go_where() -> None:
    """Tableside gets all loads both ways; behind nginx other servers get only the saturating loads."""
    plan = Plan(1, ("c1", "c64", "open200", "half", "binary"))
    assert loads_of(plan, "tableside-nginx", NGINX) == loads_of(plan, "flask", DIRECT) == list(plan.loads[:4])
    assert loads_of(plan, "flask", NGINX) == ["c64"]


def test_an_unknown_name_is_rejected_with_the_known_ones() -> None:
    """A wrong name in --peers ends the run at once and lists the known names."""
    assert chosen("flask, mlserver", CONTESTANTS, "contestant") == ["flask", "mlserver"]
    with pytest.raises(SystemExit, match="'flsk' is not a contestant; choose from: tableside"):
        chosen("flsk", CONTESTANTS, "contestant")
