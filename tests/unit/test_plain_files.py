"""Whatever lies in the repository: nothing blocks a reader, no path leaves its folder, names are names of methods."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from tableside.contracts import schema
from tableside.contracts.schema import Contract
from tableside.errors import ContractBroken, FailureKind
from tableside.preflight.child import TOO_MUCH_MEMORY
from tableside.process import plain_files
from tableside.repository import integrity, model_toml_edits, paths
from tableside.serving.catalog import EMPTY
from tableside.serving.loader import load_catalog
from tableside.serving.scan import scan
from tableside.settings import Repository

pytestmark = pytest.mark.processes
FILES = ("contract.json", "checksums.sha256", "model.skops")


@pytest.fixture
def root(repository: Path, tmp_path: Path) -> Path:
    """A repository with a writable copy of iris/1."""
    shutil.copytree(repository / "iris" / "1", tmp_path / "models/iris/1")
    for file in (tmp_path / "models/iris/1").iterdir():
        file.chmod(0o644)
    return tmp_path / "models"


def pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def device(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [pipe, device])
@pytest.mark.parametrize("file", [*FILES, "../model.toml"])
def test_a_pipe_or_a_device_blocks_nothing(root: Path, make: Callable[[Path], None], file: str) -> None:
    """A scan, a load, a check without a load and an edit end, with an error that is one of ours or none."""
    make(root / "iris/1" / file)
    found = scan(root, None, EMPTY)
    catalog = load_catalog(root, Repository(), 1, EMPTY)
    if file == "contract.json":
        assert found.models == catalog.models == {}
        return
    [servable] = catalog.models["iris"].servables
    assert servable.state.name == "UNAVAILABLE"
    assert "is not an ordinary file" in servable.reason or "links to a file outside" in servable.reason
    if file in FILES:
        with pytest.raises(ContractBroken, match="is not an ordinary file|links to a file outside"):
            integrity.check_unloaded(root, "iris", 1, "refuse")
    else:
        with pytest.raises((ContractBroken, OSError), match="is not an ordinary file"):
            model_toml_edits.set_alias(root, "iris", "x", 1)


def test_what_is_read_is_bounded(tmp_path: Path) -> None:
    """A file with more than the most bytes is an error, and one with exactly as many is read."""
    (tmp_path / "file").write_bytes(b"12345")
    assert plain_files.read(tmp_path / "file", 5) == b"12345"
    with pytest.raises(OSError, match="more than 4 bytes"):
        plain_files.read(tmp_path / "file", 4)
    with pytest.raises(OSError, match="Is a directory"):
        plain_files.read(tmp_path)


def rewrite(root: Path, change: Callable[[Contract], Contract]) -> None:
    changed = change(integrity.read_contract(root, "iris", 1))
    (root / "iris/1" / paths.CONTRACT).write_bytes(schema.encode(changed))


@pytest.mark.parametrize("name", ["../1/model.skops", "/etc/passwd", "code/model.skops", ".hidden", "", "a\nb"])
@pytest.mark.parametrize("member", ["artifact", "graph", "boosters"])
def test_a_file_of_a_version_has_a_bare_name(root: Path, name: str, member: str) -> None:
    """Artifact, graph and boosters are files of the version's folder itself."""

    def change(contract: Contract) -> Contract:
        file = msgspec.structs.replace(contract.artifact, file=name)
        return msgspec.structs.replace(contract, **{member: (file,) if member == "boosters" else file})

    rewrite(root, change)
    with pytest.raises(ContractBroken, match="no name of a file of a version"):
        integrity.check_artifact(root, integrity.read_contract(root, "iris", 1))


def test_a_link_does_not_lead_out_of_the_folder(root: Path, tmp_path: Path) -> None:
    """A link to the same bytes elsewhere is refused, so that no version depends on what others may change."""
    artifact = root / "iris/1/model.skops"
    artifact.rename(tmp_path / "elsewhere")
    artifact.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ContractBroken, match="links to a file outside") as refused:
        integrity.check_artifact(root, integrity.read_contract(root, "iris", 1))
    assert refused.value.failure_kind is FailureKind.DAMAGED


@pytest.mark.parametrize(
    ("changes", "is_known"),
    [
        ({"name": "predict"}, True),
        ({"name": "predict_3", "method": "predict", "part": 3}, True),
        ({"name": "fit"}, False),
        ({"name": "__class__"}, False),
        ({"name": "predict", "method": "__reduce__"}, False),
        ({"name": "predict(x); import os", "method": "predict"}, False),
        ({"name": "predict_-1", "method": "predict", "part": -1}, False),
        ({"name": "predict_1", "method": "predict", "part": 2}, False),
        ({"name": "predict", "method": "predict_proba"}, False),
    ],
)
def test_output_names_are_methods(root: Path, changes: dict[str, object], is_known: bool) -> None:
    """Names of outputs reach code that fast backends generate, so a contract with another name is refused."""
    contract = integrity.read_contract(root, "iris", 1)
    output = msgspec.structs.replace(contract.outputs[0], **changes)
    answers = {output.name: contract.golden.answers[contract.outputs[0].name]}
    golden = msgspec.structs.replace(contract.golden, answers=answers)
    text = schema.encode(msgspec.structs.replace(contract, outputs=(output,), golden=golden))
    if is_known:
        assert schema.decode(text).outputs == (output,)
        return
    with pytest.raises(msgspec.ValidationError, match="is no method of an estimator"):
        schema.decode(text)


CONFINED = """
import os, resource, socket, sys
from tableside.preflight import confinement
confinement.MEMORY_SHARE, confinement.MIN_MEMORY_BYTES = 0.0, 1 << 29
confinement.confine()
found = []
for family in (socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK):
    try:
        socket.socket(family, socket.SOCK_RAW if family == socket.AF_NETLINK else socket.SOCK_DGRAM).close()
    except PermissionError:
        found.append(family.name)
socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).close()
try:
    bytearray(1 << 30)
except MemoryError:
    found.append("memory")
print(*found, resource.getrlimit(resource.RLIMIT_NOFILE)[1] <= 1024, resource.getrlimit(resource.RLIMIT_CORE))
sys.exit(os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", "import socket; socket.socket()"]))
"""


def test_a_preflight_has_limits_and_no_network() -> None:
    """The process and those that it starts open no socket but Unix sockets, and take so much memory and no more."""
    done = subprocess.run([sys.executable, "-c", CONFINED], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["AF_INET", "AF_INET6", "AF_NETLINK", "memory", "True", "(0,", "0)"], done.stderr
    assert done.returncode == 1
    assert "PermissionError" in done.stderr
    assert "three quarters" in TOO_MUCH_MEMORY
    socket.socket(socket.AF_INET).close()  # this process is not confined
