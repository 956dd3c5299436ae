"""Publish: a trained estimator and a sample become one immutable version, all at once or not at all."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from tableside.contract import answers, schema
from tableside.contract.answers import MethodAnswer
from tableside.contract.environment import environment, sha256
from tableside.contract.schema import Artifact, Cell, Contract, Golden, Input, Output
from tableside.decoding.json_tables import from_rows
from tableside.errors import ContractBroken, PublishFailed, RequestRejected
from tableside.publishing import batch_invariance, equivalence, outputs, sample
from tableside.repository import integrity, model_toml, paths
from tableside.runtimes import golden
from tableside.runtimes import sklearn as runtime_sklearn
from tableside.runtimes.base import Runtime
from tableside.runtimes.router import RoutedRuntime, allowed_difference, build_router, difference_from_estimator
from tableside.runtimes.sklearn import SklearnRuntime

STALE_S = 3600
Progress = Callable[[str], None]


def publish(
    name: str,
    estimator: Any,
    sample_data: Any,
    *,
    repository: Path | str = "models",
    version: int | None = None,
    alias: str | None = None,
    target: str | None = None,
    runtime: Literal["auto", "sklearn"] = "auto",
    tolerance: float = 0.0,
    trusted_types: tuple[str, ...] = (),
    source: dict[str, str] | None = None,
    progress: Progress = lambda step: None,
) -> Contract:
    """Publish a fitted estimator as `repository/name/version/` and return its contract.

    sample_data: a DataFrame or array of shape [rows, columns] like the training data; `target` names a column to drop.
    version: the next free one by default. alias: pointed at the new version afterwards. source: where the estimator
    came from, kept in the contract. runtime: `auto` looks for a fast backend and uses what is proved equal;
    `sklearn` never does. tolerance: how far its numbers may lie apart, relative; 0 is to the bit.
    Raises PublishFailed, and leaves nothing behind, when anything about the estimator or the sample will not serve.
    """
    root, _ = Path(repository), paths.check_name(name)
    if alias is not None:
        _check_alias(root, name, alias)
    if version is not None and version < 1:
        raise PublishFailed("a version is a whole number from 1")
    if not 0 <= tolerance < 1:
        raise PublishFailed("a tolerance is a relative difference: 0 (to the bit) or a small number, 1e-6 say")
    progress("reading the sample")
    frame = sample.as_frame(sample_data, target)
    estimator_runtime = SklearnRuntime(estimator)
    progress("learning the contract")
    try:
        contract = msgspec.structs.replace(_draft(name, estimator_runtime, frame), source=source or {})
    except RequestRejected as problem:
        raise PublishFailed(f"the sample does not fit the contract that was learned from it: {problem}") from problem
    graph: bytes | None = None
    if runtime == "auto":
        contract, graph = _check_backends(contract, estimator_runtime, frame, tolerance, progress)
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    draft = folder / f".publishing-{uuid.uuid4().hex}"
    draft.mkdir()
    try:
        progress("writing the artifact")
        contract = _write_graph(draft, graph, _write_artifact(draft, estimator, contract))
        progress("replaying the golden rows from the artifact")
        loaded = runtime_sklearn.load(draft / paths.ARTIFACT, trusted_types)
        golden.replay(contract, loaded.run)
        _check_loaded_backends(build_router(loaded, contract, draft), contract)
        contract = _claim(folder, draft, contract, version)
    except ContractBroken as problem:
        hint = "; name them in repository.trusted_types if you trust them" if "not trusted" in str(problem) else ""
        raise PublishFailed(f"{problem}{hint}") from problem
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    if alias is not None:
        model_toml.set_alias(root, name, alias, contract.version)
    return contract


def _check_backends(
    contract: Contract, runtime: SklearnRuntime, frame: Any, tolerance: float, progress: Progress
) -> tuple[Contract, bytes | None]:  # fmt: skip
    """The contract with what was tried and what is to be used, and the graph's bytes if one is."""
    aligned, _ = sample.align(frame, runtime.estimator)
    aligned = sample.restore_none(aligned, sample.fitted_categories(runtime.estimator))
    known = golden.golden_table(contract)
    report = equivalence.check_backends(runtime, contract.input, contract.outputs, aligned, tolerance, progress, known)
    batch, batch_tolerance_ulp = batch_invariance.widen(
        contract.batch_invariance, contract.batch_tolerance_ulp, equivalence.largest_used_difference(report)
    )
    contract = msgspec.structs.replace(
        contract,
        equivalence_checks=report.equivalence_checks,
        routes=report.routes,
        tolerance=tolerance,
        batch_invariance=batch,
        batch_tolerance_ulp=batch_tolerance_ulp,
    )
    return contract, report.graph


def _check_alias(root: Path, name: str, alias: str) -> None:
    """An alias that could not be set afterwards would leave a version published by a command that failed."""
    paths.check_alias(alias)
    try:
        model_toml.read(root, name)
    except ContractBroken as problem:
        raise PublishFailed(f"{problem}; mend it, or publish without an alias") from problem


def _draft(name: str, runtime: SklearnRuntime, frame: Any) -> Contract:
    estimator = runtime.estimator
    frame, form = sample.align(frame, estimator)
    fitted = sample.fitted_categories(estimator)
    frame = sample.restore_none(frame, fitted)
    described = sample.describe(frame, form, fitted)
    chosen = sample.golden_rows(frame)
    rows = sample.rows_as_cells(frame.iloc[chosen], described)
    found, _ = outputs.find(runtime, from_rows(rows, _nullable(described)).to_input())
    _check_rows(runtime, from_rows(rows * 2, _nullable(described)).to_input(), len(rows) * 2, found[0])
    described = _probe_missing(runtime, described, rows, found[0].source)
    table = from_rows(rows, described)
    recorded = golden.record(runtime.run, table, tuple(tuple(row) for row in rows), found)
    _compare_with_trained_dtypes(runtime, frame.iloc[chosen], described, found, recorded)
    batch, batch_tolerance_ulp = batch_invariance.measure(runtime.run, described, recorded, found)
    return Contract(
        format=schema.FORMAT,
        name=name,
        version=0,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        kind=outputs.kind_of(estimator),
        estimator=_class_name(estimator),
        input=described,
        outputs=found,
        golden=recorded,
        artifact=Artifact(paths.ARTIFACT, "", 0),
        environment=environment(),
        batch_invariance=batch,
        batch_tolerance_ulp=batch_tolerance_ulp,
    )


def _check_rows(runtime: SklearnRuntime, data: Any, rows: int, output: Output) -> None:
    """One answer a row. A text vectorizer takes a table for a list of its column names, and answers once a column."""
    answered = len(answers.collect([output], runtime.run, data)[output.name])
    if answered != rows:
        raise PublishFailed(
            f"{output.name} gives {answered} answers for {rows} rows; an estimator that takes texts rather than "
            "a table has to sit in a ColumnTransformer, with the column's name as a string"
        )


def _class_name(estimator: Any) -> str:
    steps = getattr(estimator, "steps", None)
    inner = f"({', '.join(type(part).__name__ for _, part in steps)})" if steps else ""
    return f"{type(estimator).__name__}{inner}"


def _nullable(described: Input) -> Input:
    columns = tuple(msgspec.structs.replace(column, nullable=True) for column in described.columns)
    return msgspec.structs.replace(described, columns=columns)


def _probe_missing(runtime: SklearnRuntime, described: Input, rows: list[list[Cell]], method: str) -> Input:
    """A column is nullable when the sample had a missing value there, or the estimator answers one when asked."""
    open_schema = _nullable(described)

    def make_input(cells: list[list[Cell]]) -> Any:
        return from_rows(cells, open_schema).to_input()

    def run(data: Any) -> MethodAnswer:
        return runtime.run(method, data)

    whole = next((row for row in rows if None not in row), rows[0])
    columns = tuple(
        column
        if column.nullable
        else msgspec.structs.replace(column, nullable=sample.accepts_missing(run, make_input, whole, at))
        for at, column in enumerate(described.columns)
    )
    return msgspec.structs.replace(described, columns=columns)


def _as_trained(frame: Any, described: Input) -> Any:
    if described.form == "matrix":
        return np.ascontiguousarray(frame.to_numpy())
    return frame.iloc[:, 0].tolist() if described.form == "texts" else frame


def _compare_with_trained_dtypes(
    runtime: SklearnRuntime, frame: Any, described: Input, found: Sequence[Output], recorded: Golden
) -> None:
    """The sample itself, as the trainer holds it, must answer as its JSON spelling does."""
    data = _as_trained(frame, described)
    for name, array in answers.collect(found, runtime.run, data).items():
        expected, got = recorded.answers[name], golden.cells_of(array)
        if got != expected:
            raise PublishFailed(
                f"{name} answers differently for the sample and for its JSON spelling; please report this"
            )


def _write_artifact(draft: Path, estimator: Any, contract: Contract) -> Contract:
    import zipfile

    import skops.io

    path = draft / paths.ARTIFACT
    try:
        skops.io.dump(estimator, path, compression=zipfile.ZIP_DEFLATED, compresslevel=6)
    except Exception as problem:
        raise PublishFailed(
            f"the estimator cannot be written as skops: {type(problem).__name__}: {problem}"
        ) from problem
    held = tuple(sorted(skops.io.get_untrusted_types(file=path)))
    artifact = Artifact(paths.ARTIFACT, sha256(path), path.stat().st_size)
    return msgspec.structs.replace(contract, artifact=artifact, types=held)


def _write_graph(draft: Path, graph: bytes | None, contract: Contract) -> Contract:
    if graph is None:
        return contract
    path = draft / paths.GRAPH
    path.write_bytes(graph)
    return msgspec.structs.replace(contract, graph=Artifact(paths.GRAPH, sha256(path), len(graph)))


def _check_loaded_backends(loaded_runtime: Runtime, contract: Contract) -> None:
    """Hold the fast backends to the artifact that was read again. Raises ContractBroken."""
    if isinstance(loaded_runtime, RoutedRuntime):
        apart = difference_from_estimator(loaded_runtime, golden.golden_table(contract), contract.outputs)
        if apart > allowed_difference(contract):
            raise ContractBroken(f"golden rows: a fast backend lies apart by {apart:.2g} from the artifact")


def _claim(folder: Path, draft: Path, contract: Contract, version: int | None) -> Contract:
    """Give the finished draft a number: rename(2) onto an existing version fails, so two publishers never share one."""
    while True:
        published = paths.versions(folder.parent, folder.name)
        number = version or (published[-1] + 1 if published else 1)
        numbered = msgspec.structs.replace(contract, version=number)
        _write_durably(draft / paths.CONTRACT, schema.encode(numbered))
        _write_durably(draft / paths.CHECKSUMS, integrity.checksum_lines(numbered).encode())
        for file in draft.iterdir():
            _sync(file)
            file.chmod(0o444)
        _sync(draft)
        try:
            draft.rename(folder / str(number))
        except OSError as taken:
            if version is not None:
                raise PublishFailed(f"{folder.name}/{number} is published already; versions never change") from taken
            if not (folder / str(number) / paths.CONTRACT).is_file():
                raise PublishFailed(f"{folder / str(number)} is in the way: {taken.strerror}") from taken
            continue
        _sync(folder)
        return numbered


def _write_durably(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _sweep(folder: Path) -> None:
    """Remove what a crashed publish left behind, long after it could still be at work."""
    for left in folder.glob(".publishing-*"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > STALE_S:
                shutil.rmtree(left, ignore_errors=True)
