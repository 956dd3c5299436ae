"""A start says when the workers with their models cannot fit into memory, and never when they can."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from tableside import machine
from tableside.deployment import memory_fit
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
    """Not counted: models that are off or run elsewhere, versions that are not served, files that are no artifact."""
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
