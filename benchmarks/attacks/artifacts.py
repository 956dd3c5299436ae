"""Poisoned versions: each is put into the repository as somebody with write access could, and the stack reloads."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import skops.io
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC

from benchmarks.attacks.rows import Limits
from benchmarks.attacks.stage import Outcome, Stage
from tableside.contracts import schema
from tableside.publishing.publish import publish
from tableside.repository import integrity, paths

CHECKS, FILES = "tests/unit/test_artifact_checks.py", "tests/unit/test_plain_files.py"
BOMBS = "tests/unit/test_artifact_size.py"
SEGV = "SIGSEGV at the client's choice, four workers one after the other"
LOAD_PEAK_BYTES = 400 << 20
"""What a load may take in a worker, besides 50 times its file: the limit of `make fuzz`."""
BOMB_BYTES = 2 << 30
REPEATS, REPEATED_BYTES = 40, 50 << 20
Poison = Callable[[Path], None]


@dataclass(frozen=True)
class Poisoned:
    """model: the base, a name of `bases`. poison: changes its folder. reason: what its state has to say.

    gone: whether the version is to be missing, because nothing can be read of it.
    """

    name: str
    before: str
    model: str
    poison: Poison
    reason: str
    test: str
    gone: bool = False


def bases() -> dict[str, tuple[Any, Any]]:
    """Return the estimators that are poisoned, each with its sample."""
    rng = np.random.default_rng(0)
    rows, classes = rng.normal(size=(60, 3)), np.arange(60) % 3
    texts = [f"word{at % 7} other{at % 3}" for at in range(60)]
    return {
        "forest": (RandomForestClassifier(3, random_state=0).fit(rows, classes), rows),
        "boosting": (HistGradientBoostingRegressor(max_iter=3).fit(rows, rows[:, 0]), rows),
        "vectors": (SVC().fit(rows, classes), rows),
        "neighbours": (KNeighborsClassifier(3, algorithm="kd_tree", leaf_size=5).fit(rows, classes), rows),
        "texts": (make_pipeline(CountVectorizer(), LogisticRegression()).fit(texts, classes), texts),
    }


def make(folder: Path) -> None:
    """Publish the bases into a repository of their own."""
    for name, (estimator, sample) in bases().items():
        publish(name, estimator, sample, repository=folder, quick=True)


def _change(edit: Callable[[Any], None]) -> Poison:
    """Return a poison that edits the estimator and writes it back with its new hash."""

    def poison(version: Path) -> None:
        path = version / "model.skops"
        estimator = skops.io.load(path, trusted=skops.io.get_untrusted_types(file=path))
        edit(estimator)
        _replace(version, skops.io.dumps(estimator))

    return poison


def _replace(version: Path, artifact: bytes) -> None:
    """Put another artifact into a version, and let the contract name its hash: whoever can write one can do so."""
    (version / "model.skops").write_bytes(artifact)
    known = {"sha256": hashlib.sha256(artifact).hexdigest(), "size_bytes": len(artifact)}
    _contract(version, **known)


def _contract(version: Path, **artifact: object) -> None:
    contract = integrity.read_contract(version.parents[1], version.parent.name, 1)
    changed = msgspec.structs.replace(contract.artifact, **artifact)
    (version / paths.CONTRACT).write_bytes(schema.encode(msgspec.structs.replace(contract, artifact=changed)))


def _node(tree: Any, node: int, **fields: int) -> None:
    state = tree.tree_.__getstate__()
    state["nodes"] = state["nodes"].copy()
    for name, value in fields.items():
        state["nodes"][name][node] = value
    tree.tree_.__setstate__(state)


def _leaf(forest: Any) -> None:
    """Turn the last leaf into a split whose child is far beyond the nodes; few rows reach it."""
    tree = forest.estimators_[0]
    _node(tree, tree.tree_.node_count - 1, left_child=2**40, right_child=2**40, feature=0)


def _boosting(estimator: Any) -> None:
    predictor = vars(estimator)["_predictors"][0][0]
    predictor.nodes = predictor.nodes.copy()
    predictor.nodes["left"][0] = 2**31


def _index(estimator: Any) -> None:
    state = list(vars(estimator)["_tree"].__getstate__())
    at = next(at for at, part in enumerate(state) if getattr(part, "shape", ()) == (60,) and part.dtype.kind == "i")
    state[at] = state[at].copy()
    state[at][0] = 10**9
    vars(estimator)["_tree"].__setstate__(tuple(state))


def _vectors(estimator: Any) -> None:
    vars(estimator)["_n_support"] = np.array([60] * 3, dtype=np.int32)


def _read_files(estimator: Any) -> None:
    estimator.steps[0][1].input = "filename"


def _pipe(name: str) -> Poison:
    def poison(version: Path) -> None:
        (version / name).unlink(missing_ok=True)
        os.mkfifo(version / name)

    return poison


def with_zeros(artifact: bytes, arrays: int, size: int) -> bytes:
    """Return a skops file with more arrays of zeros, each of `size` bytes: all are read from one compressed file."""
    with zipfile.ZipFile(io.BytesIO(artifact)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    content = json.loads(members["schema.json"])
    known = content["content"]["content"]
    like = next(node for node in known.values() if isinstance(node, dict) and "file" in node)
    for at in range(arrays):
        known[f"zeros{at}_"] = {**like, "file": "zeros.npy", "__id__": 10**9 + at}
    members["schema.json"] = json.dumps(content).encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, member in members.items():
            archive.writestr(name, member)
        with archive.open("zeros.npy", "w", force_zip64=True) as file:
            head = {"descr": "<f8", "fortran_order": False, "shape": (size // 8,)}
            np.lib.format.write_array_header_1_0(file, head)  # type: ignore[arg-type]
            for _ in range(size >> 20):
                file.write(bytes(1 << 20))
    return packed.getvalue()


def _bomb(arrays: int, size: int) -> Poison:
    return lambda version: _replace(version, with_zeros((version / "model.skops").read_bytes(), arrays, size))


POISONED = (
    Poisoned(
        "CountVectorizer(input=\"filename\")", "a client read the admin key", "texts", _change(_read_files),
        "would open files that requests name", CHECKS,
    ),
    Poisoned("a leaf that became a split", SEGV, "forest", _change(_leaf), "a child that is no later node", CHECKS),
    Poisoned(
        "a child before its parent", SEGV, "forest", _change(lambda f: _node(f.estimators_[1], 0, right_child=0)),
        "a child that is no later node", CHECKS,
    ),
    Poisoned(
        "a feature that a tree does not have", SEGV, "forest",
        _change(lambda f: _node(f.estimators_[1], 0, feature=3)), "a feature that the tree does not have", CHECKS,
    ),
    Poisoned("boosting: a child beyond the end", SEGV, "boosting", _change(_boosting), "no later node", CHECKS),
    Poisoned("support vectors beyond their array", SEGV, "vectors", _change(_vectors), "support vectors", CHECKS),
    Poisoned("neighbours beyond their array", SEGV, "neighbours", _change(_index), "its index names rows", CHECKS),
    Poisoned(
        "a pipe as the artifact", "reload blocked", "forest", _pipe("model.skops"), "not an ordinary file", FILES,
    ),
    Poisoned("a pipe as the contract", "reload blocked", "forest", _pipe("contract.json"), "", FILES, gone=True),
    Poisoned(
        "a path as the artifact's name", "read outside of its folder", "forest",
        lambda version: _contract(version, file="../../../run/admin.key"), "no name of a file of a version", FILES,
    ),
    Poisoned(
        "one array of 2 GB in 2 MB", "2 GB in each worker", "neighbours", _bomb(1, BOMB_BYTES),
        "unpacks to", BOMBS,
    ),
    Poisoned(
        "one array of 50 MB read 40 times, in 60 kB", "2 GB in each worker", "neighbours",
        _bomb(REPEATS, REPEATED_BYTES), "unpacks to", BOMBS,
    ),
)  # fmt: skip
"""Versions that must not be served, in the order of the report."""


def attack(stage: Stage) -> None:
    """Put each version into the repository, reload, look at its state, and take it away again."""
    for poisoned in POISONED:
        folder = stage.models / "poisoned"
        shutil.copytree(stage.kept / poisoned.model, folder)
        version = folder / "1"
        for file in version.iterdir():
            file.chmod(0o644)
        (version / paths.CHECKSUMS).unlink()
        contract = json.loads((version / paths.CONTRACT).read_bytes())
        (version / paths.CONTRACT).write_bytes(json.dumps({**contract, "name": "poisoned"}).encode())
        poisoned.poison(version)
        stage.attack(
            poisoned.name, poisoned.before, lambda p=poisoned: _served(stage, p),  # type: ignore[misc]
            lambda got: Limits(LOAD_PEAK_BYTES + 50 * got.bytes_sent), poisoned.test,
        )  # fmt: skip
        shutil.rmtree(folder)
        stage.stack.tableside("reload")


def _served(stage: Stage, poisoned: Poisoned) -> Outcome:
    artifact = stage.models / "poisoned" / "1" / "model.skops"
    size = artifact.stat().st_size
    stage.stack.tableside("reload")
    models = json.loads(stage.ask("/admin/api/models", headers=stage.admin_key(), admin=True).content)["models"]
    versions = [each for model in models if model["name"] == "poisoned" for each in model["versions"]]
    if not versions:
        return Outcome(size, "no such model", poisoned.gone)
    [found] = versions
    state, reason = found["state"], found["reason"]
    is_right = state == "UNAVAILABLE" and poisoned.reason in reason and not poisoned.gone
    return Outcome(size, f"{state}: {reason}" if not is_right else f"refused: {poisoned.reason}", is_right)
