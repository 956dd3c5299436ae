"""Checks of a published version that need no load: contract, hashes, checksums and library versions."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from tableside.contracts import schema
from tableside.contracts.schema import Contract, Route
from tableside.errors import ContractBroken, FailureKind
from tableside.repository import integrity, paths

pytestmark = pytest.mark.no_greenlets


@pytest.fixture
def root(repository: Path, tmp_path: Path) -> Path:
    """A repository with a writable copy of iris/1."""
    shutil.copytree(repository / "iris" / "1", tmp_path / "iris" / "1")
    for file in (tmp_path / "iris" / "1").iterdir():
        file.chmod(0o644)
    return tmp_path


def rewrite(root: Path, change: Callable[[Contract], Contract]) -> Contract:
    """Change the contract of iris/1 and nothing else of the version."""
    changed = change(integrity.read_contract(root, "iris", 1))
    (root / "iris" / "1" / paths.CONTRACT).write_bytes(schema.encode(changed))
    return changed


def with_library_version(contract: Contract, version: str) -> Contract:
    return msgspec.structs.replace(contract, environment={**contract.environment, "scikit-learn": version})


def swap_columns(contract: Contract) -> Contract:
    columns = msgspec.structs.replace(contract.input, columns=contract.input.columns[::-1])
    return msgspec.structs.replace(contract, input=columns)


def drop_an_output(contract: Contract) -> Contract:
    kept = contract.outputs[:1]
    golden = msgspec.structs.replace(contract.golden, answers={kept[0].name: contract.golden.answers[kept[0].name]})
    return msgspec.structs.replace(contract, outputs=kept, golden=golden)


def name_another_artifact(contract: Contract) -> Contract:
    return msgspec.structs.replace(contract, artifact=msgspec.structs.replace(contract.artifact, sha256="0" * 64))


def add_a_graph(contract: Contract) -> Contract:
    return msgspec.structs.replace(contract, graph=schema.Artifact(paths.GRAPH, "0" * 64, 1))


def test_an_unchanged_version_passes_all_checks_without_a_warning(root: Path) -> None:
    """A version that is as publish wrote it, in the environment of publish, has nothing to warn of."""
    assert integrity.check_unloaded(root, "iris", 1, "refuse") == ""
    contract = integrity.read_contract(root, "iris", 1)
    assert integrity.check_artifact(root, contract) == root / "iris" / "1" / "model.skops"
    assert integrity.environment_differences(contract) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "truncated"),
        (b"{", "truncated"),
        (b"[]", "Expected `object`"),
        (b'{"format": 1}', "missing required field"),
    ],
)
def test_a_contract_that_cannot_be_read_is_named(root: Path, content: bytes, message: str) -> None:
    """The error starts with the place of the contract in the repository and gives the reason."""
    (root / "iris" / "1" / paths.CONTRACT).write_bytes(content)
    with pytest.raises(ContractBroken, match=message) as broken:
        integrity.read_contract(root, "iris", 1)
    assert str(broken.value).startswith("iris/1/contract.json: ")
    assert broken.value.failure_kind is FailureKind.CONTRACT


def test_a_missing_contract_is_named(root: Path) -> None:
    """A version that does not exist is reported with the path of its contract."""
    with pytest.raises(ContractBroken, match=r"^iris/2/contract\.json: .*No such file"):
        integrity.read_contract(root, "iris", 2)


@pytest.mark.parametrize("place", [("iris", 2), ("rose", 1)])
def test_a_version_that_was_moved_is_refused(root: Path, place: tuple[str, int]) -> None:
    """A folder copied under another name or number still belongs to the old one, and the error says what to do."""
    name, number = place
    shutil.copytree(root / "iris" / "1", root / name / str(number))
    with pytest.raises(
        ContractBroken, match=rf"^{name}/{number}/contract\.json belongs to iris/1\. .*publish it again"
    ):
        integrity.read_contract(root, name, number)


def test_one_changed_byte_of_the_artifact_is_damage(root: Path) -> None:
    """The error names the file, the beginning of both hashes, and the remedy."""
    contract = integrity.read_contract(root, "iris", 1)
    path = root / "iris" / "1" / "model.skops"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(ContractBroken) as broken:
        integrity.check_artifact(root, contract)
    assert broken.value.failure_kind is FailureKind.DAMAGED
    assert str(broken.value).startswith("model.skops is damaged: its sha256 is ")
    assert f"but was {contract.artifact.sha256[:12]}... at publish" in str(broken.value)
    assert "Restore the file from a copy, or publish the model again" in str(broken.value)


def test_a_missing_artifact_is_damage(root: Path) -> None:
    """A file that is gone is damage of the version, not an error of the contract."""
    contract = integrity.read_contract(root, "iris", 1)
    (root / "iris" / "1" / "model.skops").unlink()
    with pytest.raises(ContractBroken, match=r"^model\.skops cannot be read: No such file or directory$") as broken:
        integrity.check_artifact(root, contract)
    assert broken.value.failure_kind is FailureKind.DAMAGED


def test_the_graph_is_checked_before_the_artifact_is_returned(root: Path) -> None:
    """A version whose contract has a graph needs that file, too."""
    contract = rewrite(root, add_a_graph)
    with pytest.raises(ContractBroken, match=r"^model\.onnx cannot be read"):
        integrity.check_artifact(root, contract)
    (root / "iris" / "1" / paths.GRAPH).write_bytes(b"x")
    with pytest.raises(ContractBroken, match=r"^model\.onnx is damaged"):
        integrity.check_artifact(root, contract)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (name_another_artifact, "the artifact"),
        (swap_columns, "the columns or their order"),
        (drop_an_output, "the outputs"),
        (add_a_graph, "the graph"),
    ],
)
def test_the_changed_part_of_a_contract_is_named(root: Path, change: Callable[[Contract], Contract], part: str) -> None:
    """A contract edited after publish does not match its checksums, and the error says in which part."""
    contract = rewrite(root, change)
    with pytest.raises(ContractBroken, match=f"it does not match checksums.sha256 in {part}\\.") as broken:
        integrity.check_checksums(root, contract)
    assert broken.value.failure_kind is FailureKind.DAMAGED


def test_extra_lines_of_the_checksums_are_a_change(root: Path) -> None:
    """A line that publish did not write is found even where no part of the contract differs."""
    path = root / "iris" / "1" / paths.CHECKSUMS
    path.write_text(path.read_text() + "\n\n\n")
    with pytest.raises(ContractBroken, match="does not match"):
        integrity.check_checksums(root, integrity.read_contract(root, "iris", 1))


def test_checksums_that_are_not_text_are_damage(root: Path) -> None:
    """Bytes that are not ASCII are reported with the file's name."""
    (root / "iris" / "1" / paths.CHECKSUMS).write_bytes(b"\xff")
    with pytest.raises(ContractBroken, match=r"^checksums\.sha256: ") as broken:
        integrity.check_checksums(root, integrity.read_contract(root, "iris", 1))
    assert broken.value.failure_kind is FailureKind.DAMAGED


def test_a_version_without_checksums_passes(root: Path) -> None:
    """Versions of releases that wrote no checksums are still served."""
    (root / "iris" / "1" / paths.CHECKSUMS).unlink()
    integrity.check_checksums(root, integrity.read_contract(root, "iris", 1))


def test_another_minor_version_of_scikit_learn_is_refused_or_reported(root: Path) -> None:
    """`refuse` raises with the remedies; `warn` returns a warning only where the golden answers are the trainer's."""
    contract = rewrite(root, lambda contract: with_library_version(contract, "0.24.2"))
    for policy in ("refuse", "warn"):
        with pytest.raises(ContractBroken, match=r"^scikit-learn was 0\.24\.2 at publish and is ") as broken:
            integrity.check_environment(contract, policy)
        assert broken.value.failure_kind is FailureKind.ENVIRONMENT
        assert "Publish the model again in this environment" in str(broken.value)
        assert "holds only for golden answers of the trainer" in str(broken.value)
    contract = msgspec.structs.replace(contract, golden=msgspec.structs.replace(contract.golden, origin="trainer"))
    with pytest.raises(ContractBroken, match=r"set repository\.environment_skew = 'warn'"):
        integrity.check_environment(contract, "refuse")
    warning = integrity.check_environment(contract, "warn")
    assert warning.startswith("scikit-learn was 0.24.2 at publish and is ")
    assert warning.endswith("Served because repository.environment_skew is 'warn'")


def test_the_version_of_training_counts_as_well(root: Path) -> None:
    """A version that was trained elsewhere and published here is of another environment, and says so."""
    contract = integrity.read_contract(root, "iris", 1)
    here = contract.environment["scikit-learn"]
    contract = msgspec.structs.replace(contract, trained_with={"scikit-learn": "1.2.2"})
    assert integrity.environment_differences(contract) == [f"scikit-learn was 1.2.2 in training and is {here} here"]
    assert integrity.environment_differences(contract, {"scikit-learn": "1.2.0"}) == [
        f"scikit-learn was {here} at publish and is 1.2.0 in its environment"
    ]


def test_another_patch_version_is_the_same_environment(root: Path) -> None:
    """Fitted attributes do not change between patch versions, so that difference is none."""
    contract = integrity.read_contract(root, "iris", 1)
    minor = contract.environment["scikit-learn"].rpartition(".")[0]
    assert integrity.check_environment(with_library_version(contract, f"{minor}.99"), "refuse") == ""


def test_a_contract_without_library_versions_differs(root: Path) -> None:
    """A version that does not record scikit-learn cannot be known to fit."""
    contract = msgspec.structs.replace(integrity.read_contract(root, "iris", 1), environment={})
    (difference,) = integrity.environment_differences(contract)
    assert difference.startswith("scikit-learn was not recorded at publish and is ")


def test_missing_libraries_of_fast_backends_are_a_warning(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each missing library is named once with the command that installs it; backends that need none are not named."""
    contract = integrity.read_contract(root, "iris", 1)
    routes = (Route("onnx", 8), Route("treelite", 256), Route("onnx", order="F"), Route("linear"))
    contract = msgspec.structs.replace(contract, routes=routes)
    monkeypatch.setattr(integrity, "find_spec", lambda library: None)
    both = integrity.environment_warnings(contract, "refuse")
    assert both.startswith("onnxruntime and treelite are not installed: ")
    assert both.endswith("-r requirements/onnx.txt")
    monkeypatch.setattr(integrity, "find_spec", lambda library: None if library == "treelite" else object())
    assert integrity.missing_libraries(contract) == ["treelite"]
    assert integrity.missing_in_words(contract).startswith("treelite is not installed: ")
    monkeypatch.setattr(integrity, "find_spec", lambda library: object())
    assert integrity.missing_in_words(contract) == ""
