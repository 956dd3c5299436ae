"""Publishing by upload: `POST /admin/api/models/NAME/versions`, over HTTP and with the real upload process."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import pickle as pickle_module
import shutil
import signal
import tarfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import ANY

import msgspec
import numpy as np
import pytest
from flask import Flask
from skl2onnx import to_onnx

from tableside.contracts import schema
from tableside.errors import TablesideError
from tableside.process import operations
from tableside.process.audit_log import FILE
from tableside.process.file_locks import wait_for_lock
from tableside.repository import integrity, version_record
from tableside.uploads import child, start
from tableside.uploads.child import QUEUE, UploadJob
from tableside.uploads.options import Options
from tableside.uploads.publishing import publish_upload
from tableside.web.extensions import EXTENSION_KEY
from tests.conftest import BEARER, CONTROL, MakeApp, error_of
from tests.waiting import wait_until

pytestmark = pytest.mark.processes


def packed(files: Mapping[str, bytes], mode: str = "w") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def send(app: Flask, name: str, body: bytes, query: str = "wait=60", **more: Any) -> Any:
    url = f"/admin/api/models/{name}/versions?{query}"
    return app.test_client().post(url, data=body, headers=BEARER, environ_overrides=CONTROL, **more)


def test_a_version_is_published_and_served(worker: Flask, repository: Path, tmp_path: Path) -> None:
    """A tar of a version folder: the workers serve it under its number, with the same files; the audit log has it."""
    folder = repository / "wine" / "1"
    body = packed({f"1/{name}": content for name, content in files_of(folder).items()}, "w:gz")
    response = send(worker, "wine", body, f"wait=60&sha256={hashlib.sha256(body).hexdigest()}")
    got = response.get_json()
    assert response.status_code == 200, got
    assert (got["name"], got["version"], got["state"], got["was_there"]) == ("wine", 1, "READY", False)
    assert worker.test_client().get("/v2/models/wine/versions/1/ready").status_code == 200
    assert files_of(tmp_path / "models" / "wine" / "1") == files_of(folder)
    shown = worker.test_client().get(response.headers["Location"], headers=BEARER, environ_overrides=CONTROL).get_json()
    assert (shown["state"], shown["kind"], shown["model"], shown["by"]) == ("done", "publish", "wine", "admin.key")
    lines = [json.loads(line) for line in (tmp_path / "run" / FILE).read_text().splitlines()]
    assert [(line["event"], line["model"], line["state"]) for line in lines] == [
        ("publish", "wine", "begun"), ("publish", "wine", "done"),
    ]  # fmt: skip
    assert lines[0]["upload_sha256"] == hashlib.sha256(body).hexdigest()
    assert lines[1]["after"] == "wine/1"
    assert list((tmp_path / "run" / "uploads").iterdir()) == []
    assert [path.name for path in (tmp_path / "models" / "wine").glob(".*")] == []


@pytest.mark.slow
def test_an_estimator_is_published_with_its_sample(worker: Flask, repository: Path, trained: Any) -> None:
    """A skops file and sample.csv are published by the server, which answers 202 at once and tells the steps."""
    sample = trained["iris"][1].to_csv(index=False).encode()
    body = packed({"model.skops": (repository / "iris" / "1" / "model.skops").read_bytes(), "sample.csv": sample})
    response = send(worker, "flowers", body, "quick=true")
    assert response.status_code == 202
    location = response.headers["Location"]
    client = worker.test_client()
    ended = client.get(f"{location}?wait=60", headers=BEARER, environ_overrides=CONTROL).get_json()
    assert ended["state"] == "done", ended
    assert (ended["result"]["version"], ended["result"]["state"]) == (1, "READY")
    answer = client.post("/v1/models/flowers:predict", json={"instances": [[5.1, 3.5, 1.4, 0.2]]})
    assert answer.get_json() == {"predictions": ["setosa"]}


@pytest.mark.slow
def test_an_onnx_graph_is_published_with_its_sample(worker: Flask, trained: Any) -> None:
    """As skl2onnx writes it; the answer is the graph's."""
    estimator, sample = trained["iris"]
    numbers = sample.to_numpy(np.float32)
    graph = to_onnx(estimator, numbers[:1], options={"zipmap": False}).SerializeToString()
    body = packed({"m.onnx": graph, "sample.csv": sample.to_csv(index=False).encode()})
    response = send(worker, "graph", body, "quick=true")
    client = worker.test_client()
    ended = client.get(f"{response.headers['Location']}?wait=60", headers=BEARER, environ_overrides=CONTROL).get_json()
    assert (ended["state"], ended["result"]["state"]) == ("done", "READY"), ended
    answer = client.post("/v1/models/graph:predict", json={"instances": [[5.1, 3.5, 1.4, 0.2]]})
    assert answer.get_json() == {"predictions": ["setosa"]}


def test_the_upload_process_killed_is_a_failed_operation(
    worker: Flask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL while it waits for another upload: the operation says so, the audit log too, and nothing is published."""
    run_dir = tmp_path / "run"
    (run_dir / "operations").mkdir()
    queue = wait_for_lock(run_dir / QUEUE)
    monkeypatch.setattr(start, "POLL_S", 0.01)
    pids: list[int] = []
    try:
        operation_id = send(worker, "wine", packed({"contract.json": b"{}"}), "").get_json()["operation"]["id"]
        assert wait_until(lambda: pids.extend(upload_processes(run_dir)) or pids)
        os.kill(pids[0], signal.SIGKILL)
        assert wait_until(lambda: state_of(run_dir, operation_id) == "failed")
    finally:
        os.close(queue)
    ended = operations.find(run_dir, operation_id)
    assert ended is not None
    assert ended.status == 500
    assert "SIGKILL" in ended.error
    last = json.loads((run_dir / FILE).read_text().splitlines()[-1])
    assert (last["event"], last["state"]) == ("publish", "failed")
    assert not (tmp_path / "models" / "wine").exists()


def state_of(run_dir: Path, operation_id: str) -> str:
    found = operations.find(run_dir, operation_id)
    return found.state if found is not None else ""


def upload_processes(run_dir: Path) -> list[int]:
    """The upload processes of a run folder: they hold the locks of their operations."""
    found = []
    for each in Path("/proc").glob("[1-9]*"):
        with suppress(OSError):
            fds = [os.readlink(fd) for fd in (each / "fd").iterdir()]
            if b"tableside.uploads.child" in (each / "cmdline").read_bytes() and any(str(run_dir) in fd for fd in fds):
                found.append(int(each.name))
    return found


@pytest.fixture
def published(worker: Flask, repository: Path, tmp_path: Path) -> Path:
    """A copy of the version wine/1, to be changed and sent."""
    folder = tmp_path / "sent"
    shutil.copytree(repository / "wine" / "1", folder)
    for path in folder.rglob("*"):
        path.chmod(0o644)
    return folder


class Refused(NamedTuple):
    """How an upload ended: the status, and the text."""

    status: int
    error: str


def done(app: Flask, name: str, body: bytes, renumber: bool = False, breaking: bool = False) -> dict[str, object]:
    """Carry out an upload in this process, without its confinement, and return its result."""
    settings = app.extensions[EXTENSION_KEY].settings
    archive = settings.run_dir / "sent.tar"
    archive.write_bytes(body)
    running = operations.begin(settings.run_dir, "publish", name, "me")
    options = Options(breaking=breaking)
    job = UploadJob(settings, running.operation, running.lock, name, str(archive), renumber, options, {})
    try:
        return publish_upload(job, lambda _: None)
    finally:
        os.close(running.lock)


def refused(app: Flask, body: bytes, name: str = "wine", renumber: bool = False) -> Refused:
    """Carry out an upload, and return how it failed. Nothing of it is left."""
    settings = app.extensions[EXTENSION_KEY].settings
    before = sorted((settings.repository_path / name).rglob("*"))
    with pytest.raises(TablesideError) as caught:
        done(app, name, body, renumber)
    assert sorted((settings.repository_path / name).rglob("*")) == before
    status, error, _ = child.failure(caught.value)
    return Refused(status, error)


def test_what_is_no_version_is_refused(worker: Flask, published: Path) -> None:
    """400 with what is wrong: another model's, a damaged file, a file that nobody has named, wrong answers."""
    files = files_of(published)
    assert refused(worker, packed(files), "other") == (400, ANY)
    assert "number=next" in refused(worker, packed(files), "other").error
    damaged = {**files, "model.skops": files["model.skops"] + b"x"}
    assert "model.skops is damaged" in refused(worker, packed(damaged)).error
    assert "does not name code/x.py, notes" in refused(worker, packed({**files, "notes": b"", "code/x.py": b""})).error
    without = {name: content for name, content in files.items() if name != "model.skops"}
    assert refused(worker, packed(without)).status == 400
    contract = json.loads(files["contract.json"])
    contract["golden"]["answers"]["predict"][0][0] = -1
    wrong = refused(worker, packed({**files, "contract.json": json.dumps(contract).encode()}))
    assert (wrong.status, "golden" in wrong.error) == (400, True)
    assert "not a contract" in refused(worker, packed({"contract.json": b"{}"})).error
    assert "no estimator" in refused(worker, packed({"README": b""})).error
    assert "no sample" in refused(worker, packed({"m.skops": files["model.skops"]})).error
    damaged = refused(worker, packed({"m.onnx": b"junk", "sample.csv": b"a\n1\n"}))
    assert (damaged.status, damaged.error.startswith("m.onnx: the ONNX graph cannot be read")) == (400, True)
    assert "a format that is not read" in refused(worker, packed({"m.bst": b"", "sample.csv": b"a\n1\n"})).error


def test_a_pickle_is_never_read(worker: Flask, published: Path, tmp_path: Path) -> None:
    """403, and the code in it has not run: as an estimator, under the name of a skops file, and in a version."""
    mark = tmp_path / "has-run"

    class Touch:
        def __reduce__(self) -> Any:
            return (Path.touch, (mark,))

    pickle = pickle_module.dumps(Touch())
    sample = {"sample.csv": b"a\n1\n"}
    for name in ("model.joblib", "model.pkl", "model.skops"):
        got = refused(worker, packed({name: pickle, **sample}))
        assert (got.status, "pickle" in got.error) == (403, True), name
    files = files_of(published)
    contract = json.loads(files.pop("contract.json"))
    del files["model.skops"]
    contract["artifact"] = {"file": "model.joblib", "sha256": hashlib.sha256(pickle).hexdigest(), "size_bytes": 1}
    got = refused(worker, packed({**files, "contract.json": json.dumps(contract).encode(), "model.joblib": pickle}))
    assert (got.status, "taken from no client" in got.error) == (403, True)
    record = {"training.json": b"{}", "model.joblib": pickle}
    assert refused(worker, packed(record)).status == 403
    assert not mark.exists()


def test_own_code_needs_consent_on_this_host(
    worker: Flask, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """403 with what to type; nothing is imported before."""
    mark = tmp_path / "has-run"
    code = f"open({str(mark)!r}, 'w')\n".encode()
    files = files_of(published)
    contract = json.loads(files.pop("contract.json"))
    contract["code"] = [{"file": "code/own.py", "sha256": hashlib.sha256(code).hexdigest(), "size_bytes": len(code)}]
    content = json.dumps(contract).encode()
    lines = integrity.checksum_lines(schema.decode(content)).encode()
    body = packed({**files, "contract.json": content, "checksums.sha256": lines, "code/own.py": code})
    got = refused(worker, body)
    assert (got.status, "tableside consent wine/1 --repository" in got.error) == (403, True), got
    assert not mark.exists()


def test_a_number_is_used_once(worker: Flask, repository: Path, tmp_path: Path, published: Path) -> None:
    """The same version again is no error; another one with its number is 409; number=next gives it the next number."""
    first = packed(files_of(repository / "iris" / "1"))
    assert done(worker, "iris", first)["was_there"] is True
    contract = json.loads((published / "contract.json").read_bytes())
    (published / "contract.json").write_text(json.dumps({**contract, "name": "iris"}))
    got = refused(worker, packed(files_of(published)), "iris")
    assert (got.status, "`tableside push --next`), which gives it 2" in got.error) == (409, True)
    version_record.append(tmp_path / "models", "iris", [version_record.Entry(2, "deleted", "0" * 64)])
    assert done(worker, "iris", first, renumber=True)["version"] == 3


def test_a_version_that_breaks_clients_needs_a_word(worker: Flask, published: Path) -> None:
    """It is 409 with what differs, before its golden rows are replayed; `breaking` publishes it."""
    wine = packed(files_of(published))
    got = refused(worker, wine, "iris", renumber=True)
    assert (got.status, "4 columns are gone: 'sepal length (cm)'" in got.error) == (409, True)
    made = done(worker, "iris", wine, renumber=True, breaking=True)
    assert (made["version"], made["state"]) == (2, "READY")
    notes = made["notes"]
    assert isinstance(notes, list) and "differs from iris/1" in notes[0]


def test_signatures_are_demanded_as_for_a_load(worker: Flask, published: Path) -> None:
    """With repository.trusted_keys an unsigned version is 403, and so is an estimator, which the server cannot sign."""
    extensions = worker.extensions[EXTENSION_KEY]
    policy = msgspec.structs.replace(extensions.settings.repository, trusted_keys=("me=ed25519:" + "A" * 43,))
    changed = msgspec.structs.replace(extensions.settings, repository=policy)
    worker.extensions[EXTENSION_KEY] = dataclasses.replace(extensions, settings=changed)
    got = refused(worker, packed(files_of(published)))
    assert (got.status, "not signed" in got.error) == (403, True)
    got = refused(worker, packed({"m.skops": b"PK\x03\x04", "sample.csv": b""}))
    assert (got.status, "has no key to sign with" in got.error) == (403, True)


def test_the_request_is_checked_before_anything_is_stored(make_app: MakeApp, tmp_path: Path) -> None:
    """The key, the size, the parameters and the sha256: each is an error of its own, and no file stays."""
    app = make_app(load=False, server__max_upload_bytes="1000")
    body = packed({"a": b""})
    url = "/admin/api/models/wine/versions"
    assert app.test_client().post(url, data=body, environ_overrides=CONTROL).status_code == 401
    assert app.test_client().post(url, data=body, headers=BEARER).status_code == 404
    too_large = send(app, "wine", body)
    assert (too_large.status_code, too_large.get_json()["max_bytes"]) == (413, 1000)
    assert "server.max_upload_bytes" in error_of(too_large)["error"]
    for query, words in (
        ("sha256=" + "0" * 64, "send it again"), ("sha256=xyz", "64 hexadecimal"), ("wait=x", "wait is"),
        ("number=3", "`keep`"), ("tolerance=x", "tolerance"), ("wait=1000", "wait is"), ("runtime=fast", "runtime"),
    ):  # fmt: skip
        response = send(app, "wine", b"x", query)
        assert (response.status_code, words in error_of(response)["error"]) == (400, True), query
    assert send(app, "..", b"x").status_code in (400, 404)
    assert send(app, "stats", b"x").status_code == 400
    assert send(app, "wine", b"").status_code == 400
    (tmp_path / "run" / FILE).unlink(missing_ok=True)
    (tmp_path / "run" / FILE).mkdir(parents=True)
    assert send(app, "wine", b"x").status_code == 507
    assert list((tmp_path / "run" / "uploads").iterdir()) == []
    assert operations.recent(tmp_path / "run", 10) == []


def test_an_operation_outlives_its_worker_or_is_lost(make_app: MakeApp, tmp_path: Path) -> None:
    """Any worker tells it from its file; if nobody holds its lock any more it is `lost`, not `running` for ever."""
    app = make_app(load=False)
    client = app.test_client()
    running = operations.begin(tmp_path / "run", "publish", "wine", "me")
    path = f"/admin/api/operations/{running.operation.id}"
    assert client.get(path, headers=BEARER, environ_overrides=CONTROL).get_json()["state"] == "running"
    os.close(running.lock)
    got = client.get(path, headers=BEARER, environ_overrides=CONTROL).get_json()
    assert (got["state"], got["status"]) == ("lost", 500)
    listed = client.get("/admin/api/operations?limit=1", headers=BEARER, environ_overrides=CONTROL).get_json()
    assert [each["id"] for each in listed["operations"]] == [running.operation.id]
    for unknown in ("x", "20260101T000000-00000000", "..%2f..%2fadmin.key"):
        missing = client.get(f"/admin/api/operations/{unknown}", headers=BEARER, environ_overrides=CONTROL)
        assert missing.status_code == 404
    assert client.get("/admin/api/operations?limit=0", headers=BEARER, environ_overrides=CONTROL).status_code == 400
