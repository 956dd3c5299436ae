"""Full and read-only disks, few open files, an unknown user: predictions are answered, or the start says why not."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.e2e.conftest import Stack, until
from tests.small_disks import fill, on_small_disks, seen_by

pytestmark = pytest.mark.e2e
ROW = {"instances": [[5.1, 3.5, 1.4, 0.2]]}
SHM = Path("/dev/shm")


def answers(stack: Stack, count: int = 20) -> list[int]:
    return [stack.call("/v1/models/iris:predict", ROW)[0] for _ in range(count)]


def workers(stack: Stack, run_dir: Path) -> set[int]:
    """The pids of the workers, as their status files say, which works without a request to them."""
    found = set()
    for file in (run_dir / "worker_slots").glob("*.json"):
        with suppress(ValueError, OSError):
            pid = json.loads(file.read_bytes())["pid"]
            if Path(f"/proc/{pid}").exists():
                found.add(pid)
    return found


@pytest.fixture(scope="module")
def small(make_stack: Callable[..., Stack], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, Path]]:
    """A stack whose run folder, repository and /dev/shm are file systems of a few MB; and its root in /proc."""
    disks = Path(os.path.realpath(tmp_path_factory.mktemp("d")))
    for name in ("r", "m"):
        (disks / name).mkdir()
    made = make_stack(
        start=False,
        TABLESIDE__SERVER__RUN_DIR=str(disks / "r"),
        TABLESIDE__REPOSITORY__PATH=str(disks / "m"),
        TABLESIDE__REPOSITORY__CONSENT_FILE=str(disks / "r" / "consent.jsonl"),
    )
    copy = f'cp -r "{made.folder}/models/." "{disks / "m"}" && exec "$@"'
    sizes = {disks / "r": "24m", disks / "m": "8m", SHM: "1m"}
    made.around = lambda command: on_small_disks(["sh", "-ec", copy, "sh", *command], sizes)
    made.start()
    assert made.process
    assert until(lambda: all(made.call(f"/v2/models/{name}/ready")[0] == 200 for name in ("iris", "wine")), 60)
    yield made, seen_by(made.process.pid, disks)
    made.process.send_signal(signal.SIGTERM)
    made.process.wait(90)


def test_full_disks_change_no_answer(small: tuple[Stack, Path]) -> None:
    """With run folder, repository and /dev/shm full to the last byte: answers, metrics, and a killed worker."""
    stack, root = small
    shm = seen_by(stack.process.pid, SHM) if stack.process else SHM
    fillers = [fill(folder) for folder in (root / "r", root / "m", shm)]
    try:
        assert answers(stack) == [200] * 20
        before = workers(stack, root / "r")
        assert len(before) == 2
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        assert until(lambda: len(workers(stack, root / "r") - before) == 2, 60), stack.logs(root / "r")
        assert answers(stack) == [200] * 20
        assert stack.call("/v1/models/wine:predict", {"instances": [{"alcohol": "x"}]})[0] == 400, "new labels"
        status, text, _ = stack.call("/metrics", admin=True)
        assert status == 200
        assert 'tableside_requests_total{code="200",model="iris"' in text
        large = json.dumps({"instances": [[5.1, 3.5, 1.4, 0.2]] * 60_000}).encode()
        status, content, _ = stack.call("/v1/models/iris:predict", large)
        assert (status, "disk of the run folder is full" in content["error"]) == (500, True)
        status, content, _ = stack.call("/admin/api/reload", admin=True, method="POST", headers=bearer(root / "r"))
        assert status >= 500, content
    finally:
        for file in fillers:
            file.unlink()
    assert stack.call("/v1/models/iris:predict", large)[0] == 200
    assert until(
        lambda: stack.call("/admin/api/reload", admin=True, method="POST", headers=bearer(root / "r"))[0] == 200
    )


def bearer(run_dir: Path) -> dict[str, str]:
    return {"Authorization": f"Bearer {(run_dir / 'admin.key').read_text().strip()}"}
