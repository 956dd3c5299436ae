"""A start says when the workers with their models cannot fit into memory, and never when they can."""

from __future__ import annotations

import sys
import time
import zipfile
from pathlib import Path

import pytest

from tableside import machine
from tableside.deployment import memory_fit
from tableside.model_process.process_pool import HELLO, PrivateProcess
from tests.conftest import MakeSettings

pytestmark = pytest.mark.no_greenlets
MB = 1_000_000


def version(root: Path, name: str, number: int = 1, arrays: int = 0, others: int = 0) -> Path:
    """A version whose artifact has an array and other content of these sizes, and compresses well."""
    folder = root / name / str(number)
    folder.mkdir(parents=True)
    (folder / "contract.json").write_text("{}")
    with zipfile.ZipFile(folder / "model.skops", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("1.npy", b"\0" * arrays)
        archive.writestr("schema.json", b" " * others)
    return folder


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The file with the limit of the control group, below a root of its own."""
    root = tmp_path / "kernel"
    (root / "proc/self").mkdir(parents=True)
    (root / "sys/fs/cgroup").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text("0::/\n")
    monkeypatch.setenv(machine.CGROUP_ROOT, str(root))
    return root / "sys/fs/cgroup/memory.max"


def test_a_start_warns_of_what_cannot_fit(make_settings: MakeSettings, tmp_path: Path, limit: Path) -> None:
    """The line names the need, the limit and its file, and the number of workers that fits."""
    root = tmp_path / "models"
    version(root, "large", arrays=200 * MB)
    version(root, "objects", others=30 * MB)
    settings = make_settings(root, tmp_path / "run", server__workers="8")
    assert memory_fit.need(settings) == memory_fit.Need(memory_fit.WORKER_BYTES + 30 * MB, 200 * MB)
    limit.write_text(f"{1000 * MB}\n")
    assert memory_fit.warning(settings) == ""
    limit.write_text(f"{999 * MB}\n")
    assert memory_fit.warning(settings) == (
        f"tableside: warning: 8 workers need at least 1 GB with the models of {root}, and memory.max of this control "
        "group is 1 GB: set server.workers to 7, or serve fewer models\n"
    )
    limit.write_text(f"{250 * MB}\n")
    assert "no number of workers fits" in memory_fit.warning(settings)
    limit.write_text("max\n")
    assert memory_fit.warning(settings) == "", "without a limit nothing is known"


def test_only_what_workers_load_counts(make_settings: MakeSettings, tmp_path: Path) -> None:
    """Not counted: models that are off or whose environment does not exist, versions not served, other files."""
    root = tmp_path / "models"
    for name in ("off", "elsewhere", "newest", "broken"):
        version(root, name, arrays=10)
        version(root, name, 2, arrays=3)
    (root / "off/model.toml").write_text("enabled = false\n")
    (root / "elsewhere/model.toml").write_text('environment = "old"\n')
    (root / "newest/model.toml").write_text('versions = "latest"\n')
    (root / "broken/model.toml").write_text("nonsense = 1\n")
    (root / "newest/2/booster-0.ubj").write_bytes(b"12345")
    (root / "newest/1/model.skops").write_bytes(b"no archive")
    needed = memory_fit.need(make_settings(root, tmp_path / "run"))
    assert needed == memory_fit.Need(memory_fit.WORKER_BYTES + 5, 3 + 13)
    assert memory_fit.need(make_settings(tmp_path / "none", tmp_path / "run")).shared == 0


def test_the_examples_fit_here(make_settings: MakeSettings, tmp_path: Path) -> None:
    """The example models of the project need little more than the workers."""
    settings = make_settings(Path(__file__).parents[2] / "models", tmp_path / "run", server__workers="2")
    assert memory_fit.need(settings).total(2) < 200 * MB
    assert memory_fit.warning(settings) == ""


def test_each_process_of_an_environment_has_a_copy(make_settings: MakeSettings, tmp_path: Path, limit: Path) -> None:
    """Model processes share nothing. They are as many as workers, unless the environment says how many."""
    root, own = tmp_path / "models", {"environments__two__python": sys.executable, "environments__two__processes": "2"}
    own["environments__all__python"] = sys.executable
    for name, environment in (("a", "two"), ("b", "two"), ("c", "all"), ("here", ""), ("off", "two")):
        version(root, name, arrays=10 * MB, others=1 * MB)
        enabled = "false" if name == "off" else "true"
        (root / name / "model.toml").write_text(f'environment = "{environment}"\nenabled = {enabled}\n')
    settings = make_settings(root, tmp_path / "run", server__workers="3", **own)
    base = memory_fit.MODEL_PROCESS_BYTES
    needed = memory_fit.need(settings)
    assert needed.each == memory_fit.WORKER_BYTES + 1 * MB + base + 11 * MB
    assert needed.shared == 10 * MB + 2 * (base + 22 * MB)
    limit.write_text(f"{needed.total(3) - 1}\n")
    assert "set server.workers to 2, or set `processes = 1` for the environment all, or serve" in memory_fit.warning(
        settings
    )
    limit.write_text(f"{needed.total(3)}\n")
    assert memory_fit.warning(settings) == ""


def test_a_model_process_takes_what_is_counted_for_it() -> None:
    """The estimate without models is a lower bound."""
    process = PrivateProcess("own", sys.executable, 60.0)
    try:
        rollup = Path(f"/proc/{process.call(HELLO, (), time.monotonic() + 60).header['pid']}/smaps_rollup")
        resident = int(next(line for line in rollup.read_text().splitlines() if line.startswith("Rss:")).split()[1])
    finally:
        process.close()
    assert resident * 1024 > memory_fit.MODEL_PROCESS_BYTES
