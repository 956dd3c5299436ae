"""Someone who can write into the repository, and not into the consent file, gets no code run.

Each attack changes the repository. Then everything that reads it is called: a load as a worker does it, a preflight in
a process of its own, and the commands. The attacker's code would leave a file behind.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import py_compile
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from tableside.cli import main
from tableside.contracts import schema
from tableside.contracts.consent_digest import PICKLE, package_of
from tableside.contracts.schema import Artifact, Contract
from tableside.errors import ContractBroken, FailureKind
from tableside.preflight import checks
from tableside.repository import integrity, paths
from tableside.serving.catalog import EMPTY
from tableside.serving.loader import load_catalog
from tableside.settings import Repository
from tests.own_code_models import CHURNLIB, Trained

pytestmark = [pytest.mark.no_greenlets, pytest.mark.processes, pytest.mark.slow]


@pytest.fixture
def root(with_own_code: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with m/1, which brings own code and has consent."""
    monkeypatch.setenv("TABLESIDE__REPOSITORY__CONSENT_FILE", str(tmp_path / "consent.jsonl"))
    monkeypatch.setenv("TABLESIDE__REPOSITORY__PATH", str(tmp_path / "models"))
    words = ["publish", "m", with_own_code.file("ratio.joblib"), "--sample", with_own_code.file("ratio.csv")]
    done = CliRunner().invoke(main, [*map(str, words), *with_own_code.code])
    assert done.exit_code == 0, done.output
    for file in (tmp_path / "models").rglob("*"):
        file.chmod(0o755 if file.is_dir() else 0o644)
    return tmp_path / "models"


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """The file that the attacker's code would write."""
    return tmp_path / "the-attackers-code-has-run"


def payload(trace: Path) -> str:
    return f"open({str(trace)!r}, 'w').write('x')\n"


def reads(root: Path, tmp_path: Path) -> set[FailureKind]:
    """Let everything read the repository: a worker, a preflight, the commands. Return the kinds of failure seen."""
    policy = Repository(path=str(root), consent_file=str(tmp_path / "consent.jsonl"))
    seen = {servable.failure_kind for servable in load_catalog(root, policy, 1, EMPTY)}
    verified = json.loads(CliRunner().invoke(main, ["verify", "--json"]).stdout)
    seen |= {FailureKind(result["failure_kind"]) for result in verified}
    for version in [f"{name}/{number}" for name in paths.models(root) for number in paths.versions(root, name)]:
        for words in (["show"], ["consent", "--text"]):
            CliRunner().invoke(main, [*words, version])
    assert CliRunner().invoke(main, ["list"]).exit_code == 0
    assert not [module for module in sys.modules if module.partition(".")[0] in ("churnlib", "helpers")]
    return seen


def described(folder: Path, name: str) -> Artifact:
    content = (folder / name).read_bytes()
    return Artifact(name, hashlib.sha256(content).hexdigest(), len(content))


def rewritten(root: Path, number: int, change: Callable[[Contract, Path], Contract]) -> None:
    """Change the contract of m/`number`, and make contract and checksums agree with the files, as publish would."""
    folder = root / "m" / str(number)
    contract = change(schema.decode((folder / paths.CONTRACT).read_bytes()), folder)
    (folder / paths.CONTRACT).write_bytes(schema.encode(contract))
    (folder / paths.CHECKSUMS).write_text(integrity.checksum_lines(contract))


def with_new_hashes(contract: Contract, folder: Path) -> Contract:
    code = tuple(described(folder, file.file) for file in contract.code)
    return msgspec.structs.replace(contract, code=code, artifact=described(folder, contract.artifact.file))


def renamed_types(folder: Path, before: Contract) -> None:
    """Let the artifact name the code as it is now, so that only the consent is missing."""
    after = with_new_hashes(before, folder)
    path = folder / before.artifact.file
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    members["schema.json"] = members["schema.json"].replace(package_of(before).encode(), package_of(after).encode())
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def edits_a_module(root: Path, trace: Path) -> None:
    file = root / "m/1/code/helpers.py"
    file.write_text(payload(trace) + file.read_text())


def edits_a_module_and_the_contract(root: Path, trace: Path) -> None:
    edits_a_module(root, trace)

    def change(contract: Contract, folder: Path) -> Contract:
        renamed_types(folder, contract)
        after = with_new_hashes(contract, folder)
        types = tuple(kind.replace(package_of(contract), package_of(after)) for kind in contract.types)
        return msgspec.structs.replace(after, types=types)

    rewritten(root, 1, change)


def brings_a_new_version(root: Path, trace: Path) -> None:
    shutil.copytree(root / "m/1", root / "m/2")
    for file in ("helpers.py", "churnlib/__init__.py", "churnlib/ratio.py"):
        path = root / "m/2/code" / file
        path.write_text(payload(trace) + path.read_text())

    def change(contract: Contract, folder: Path) -> Contract:
        renamed_types(folder, contract)
        after = msgspec.structs.replace(with_new_hashes(contract, folder), version=2)
        types = tuple(kind.replace(package_of(contract), package_of(after)) for kind in contract.types)
        return msgspec.structs.replace(after, types=types)

    rewritten(root, 2, change)


def brings_a_pickle(root: Path, trace: Path) -> None:
    class Payload:
        def __reduce__(self) -> Any:
            return exec, (payload(trace),)

    shutil.copytree(root / "m/1", root / "m/2")
    (root / "m/2" / PICKLE).write_bytes(pickle.dumps(Payload()))

    def change(contract: Contract, folder: Path) -> Contract:
        artifact = described(folder, PICKLE)
        return msgspec.structs.replace(contract, version=2, artifact=artifact, code=(), types=())

    rewritten(root, 2, change)


def brings_a_pickle_as_skops(root: Path, trace: Path) -> None:
    brings_a_pickle(root, trace)
    (root / "m/2" / PICKLE).replace(root / "m/2" / paths.ARTIFACT)

    def change(contract: Contract, folder: Path) -> Contract:
        return msgspec.structs.replace(contract, artifact=described(folder, paths.ARTIFACT))

    rewritten(root, 2, change)


def links_the_code_folder(root: Path, trace: Path) -> None:
    other = trace.parent / "elsewhere"
    shutil.copytree(root / "m/1/code", other)
    shutil.rmtree(root / "m/1/code")
    (root / "m/1/code").symlink_to(other)
    (other / "helpers.py").write_text(payload(trace))


def names_a_file_elsewhere(root: Path, trace: Path) -> None:
    (trace.parent / "evil.py").write_text(payload(trace))

    def change(contract: Contract, folder: Path) -> Contract:
        code = described(folder, "../../../evil.py")
        named = msgspec.structs.replace(code, file="code/../../../../evil.py")
        return msgspec.structs.replace(contract, code=(*contract.code, named))

    rewritten(root, 1, change)


def calls_a_consented_function_with_arguments_of_its_own(root: Path, trace: Path) -> None:
    """The code is that to which there is consent; the artifact is another one."""
    shutil.copytree(root / "m/1", root / "m/2")

    def change(contract: Contract, folder: Path) -> Contract:
        with zipfile.ZipFile(folder / paths.ARTIFACT, "a") as archive:
            archive.writestr("more", b"x")
        return msgspec.structs.replace(with_new_hashes(contract, folder), version=2)

    rewritten(root, 2, change)


ATTACKS: dict[Callable[[Path, Path], None], set[FailureKind]] = {
    edits_a_module: {FailureKind.DAMAGED},
    edits_a_module_and_the_contract: {FailureKind.DAMAGED},
    brings_a_new_version: {FailureKind.NONE, FailureKind.CONSENT},
    brings_a_pickle: {FailureKind.NONE, FailureKind.CONSENT},
    brings_a_pickle_as_skops: {FailureKind.NONE, FailureKind.OTHER},
    links_the_code_folder: {FailureKind.DAMAGED},
    names_a_file_elsewhere: {FailureKind.CONTRACT},
    calls_a_consented_function_with_arguments_of_its_own: {FailureKind.NONE, FailureKind.CONSENT},
}


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_the_repository_alone_runs_nothing(
    attack: Callable[[Path, Path], None], root: Path, trace: Path, tmp_path: Path
) -> None:
    """Whatever reads the repository says what is wrong, and runs nothing of it."""
    attack(root, trace)
    assert reads(root, tmp_path) == ATTACKS[attack]
    assert not trace.exists()


def adds_compiled_files(code: Path, trace: Path) -> None:
    source = trace.parent / "evil.py"
    source.write_text(payload(trace))
    for module in ("helpers", "churnlib/ratio", "churnlib/__init__"):
        path = code / module
        cached = path.parent / "__pycache__" / f"{path.name}.{sys.implementation.cache_tag}.pyc"
        cached.parent.mkdir(exist_ok=True)
        invalidation = py_compile.PycInvalidationMode.UNCHECKED_HASH
        py_compile.compile(str(source), str(cached), invalidation_mode=invalidation)
        shutil.copy(cached, path.with_suffix(".pyc"))


def adds_modules_that_hide_others(code: Path, trace: Path) -> None:
    for name in (
        "helpers/__init__.py",
        "numpy.py",
        "sklearn/__init__.py",
        "churnlib/late/__init__.py",
        "churnlib/numpy.py",
    ):
        (code / name).parent.mkdir(exist_ok=True)
        (code / name).write_text(payload(trace))
    (code / "sitecustomize.py").write_text(payload(trace))
    (code / "evil.pth").write_text(f"import os; {payload(trace)}")


def adds_a_module_that_the_code_tries_to_import(code: Path, trace: Path) -> None:
    (code / "churnlib/data/__init__.py").write_text(payload(trace))
    (code / "churnlib/__main__.py").write_text(payload(trace))


@pytest.mark.parametrize(
    "addition",
    [adds_compiled_files, adds_modules_that_hide_others, adds_a_module_that_the_code_tries_to_import],
    ids=lambda addition: addition.__name__,
)
def test_files_that_are_added_are_never_read(
    addition: Callable[[Path, Path], None], root: Path, trace: Path, tmp_path: Path
) -> None:
    """Files beside those of the contract change nothing: the version is served, and they are not run."""
    addition(root / "m/1/code", trace)
    assert reads(root, tmp_path) == {FailureKind.NONE}
    assert not trace.exists()


@pytest.mark.parametrize("with_artifact", [False, True])
def test_files_replaced_after_the_check_are_not_run(
    root: Path, trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_artifact: bool
) -> None:
    """What is run is what was hashed, also when files are replaced between the check and the first import.

    The code was read when it was hashed. The artifact is read, hashed and loaded in one step; another one is refused.
    """
    load = checks.load_sklearn

    def replace_first(*args: Any) -> Any:
        for file in (root / "m/1/code").rglob("*.py"):
            file.write_text(payload(trace))
        if with_artifact:
            (root / "m/1" / paths.ARTIFACT).write_bytes(b"")
        return load(*args)

    monkeypatch.setattr(checks, "load_sklearn", replace_first)
    policy = Repository(consent_file=str(tmp_path / "consent.jsonl"))
    if with_artifact:
        with pytest.raises(ContractBroken, match="model.skops is damaged"):
            checks.check_version(root, "m", 1, policy)
    else:
        runtime = checks.check_version(root, "m", 1, policy)
        assert runtime.run("predict", [[10.0, 2.0]]).shape == (1,)
    assert not trace.exists()
    with pytest.raises(ContractBroken, match="is damaged"):
        checks.check_version(root, "m", 1, policy)


def test_a_link_to_a_large_tree_is_not_walked(root: Path, tmp_path: Path) -> None:
    """The fingerprint of a version whose `code` is a link does not follow it."""
    from tableside.serving.scan import fingerprint

    deep = tmp_path / "deep"
    (deep / "a/b").mkdir(parents=True)
    shutil.rmtree(root / "m/1/code")
    os.symlink(deep, root / "m/1/code")
    found = fingerprint(root, "m", 1)
    assert found is not None
    assert [name for name, *_ in found] == ["checksums.sha256", "code", "contract.json", "model.skops"]


def test_the_code_of_the_tests_is_what_runs(root: Path, tmp_path: Path) -> None:
    """Without an attack the version is served: the other tests do not pass because nothing works."""
    assert reads(root, tmp_path) == {FailureKind.NONE}
    assert len(CHURNLIB) == 7
