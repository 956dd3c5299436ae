"""Loading: a version is held to its contract, and a bad one never takes a good one's place."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestRegressor

from tableside.contract import schema
from tableside.contract.environment import sha256
from tableside.contract.schema import Contract
from tableside.errors import FailureKind, ModelNotReady
from tableside.process.offload import make_offload
from tableside.publishing.publish import publish
from tableside.repository import model_toml
from tableside.serving.catalog import EMPTY
from tableside.serving.lifecycle import State
from tableside.serving.loader import load_catalog, versions_to_load
from tableside.serving.registry import Registry
from tableside.settings import Repository, load
from tableside.telemetry import metrics
from tests import skewed_environment

POLICY = Repository()
Damage = Callable[[Path], None]


def rewrite(folder: Path, change: Callable[[Contract], Contract]) -> None:
    path = folder / "contract.json"
    content = schema.encode(change(schema.decode(path.read_bytes())))
    path.chmod(0o644)
    path.write_bytes(content)


def second_version(root: Path) -> Path:
    folder = root / "iris" / "2"
    shutil.copytree(root / "iris" / "1", folder)
    rewrite(folder, lambda contract: msgspec.structs.replace(contract, version=2))
    return folder


def flip_a_byte(folder: Path) -> None:
    path = folder / "model.skops"
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def change_an_answer(folder: Path) -> None:
    def change(contract: Contract) -> Contract:
        rows = contract.golden.answers["predict"]
        answers = {**contract.golden.answers, "predict": (("virginica",), *rows[1:])}
        return msgspec.structs.replace(contract, golden=msgspec.structs.replace(contract.golden, answers=answers))

    rewrite(folder, change)


def change_the_library(folder: Path) -> None:
    environment = {"scikit-learn": "0.24.2"}
    rewrite(folder, lambda contract: msgspec.structs.replace(contract, environment=environment))


def change_a_column(folder: Path) -> None:
    def change(contract: Contract) -> Contract:
        first = msgspec.structs.replace(contract.input.columns[0], name="renamed")
        columns = (first, *contract.input.columns[1:])
        return msgspec.structs.replace(contract, input=msgspec.structs.replace(contract.input, columns=columns))

    rewrite(folder, change)


def change_the_name(folder: Path) -> None:
    rewrite(folder, lambda contract: msgspec.structs.replace(contract, name="other"))


def remove_the_artifact(folder: Path) -> None:
    (folder / "model.skops").unlink()


def tear_the_contract(folder: Path) -> None:
    path = folder / "contract.json"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize(
    ("damage", "said", "failure_kind"),
    [
        (flip_a_byte, "model.skops is damaged: its sha256 is", FailureKind.DAMAGED),
        (change_an_answer, "golden row 0: predict[0] is 'setosa', at publish 'virginica'", FailureKind.GOLDEN),
        (change_the_library, "scikit-learn 0.24.2 at publish", FailureKind.ENVIRONMENT),
        (change_a_column, "renamed", FailureKind.GOLDEN),
        (skewed_environment.swap_columns, "the golden rows could not be computed: ValueError", FailureKind.GOLDEN),
        (change_the_name, "is of other/2", FailureKind.CONTRACT),
        (remove_the_artifact, "model.skops: No such file", FailureKind.DAMAGED),
        (tear_the_contract, "contract.json: ", FailureKind.CONTRACT),
    ],
)
def test_a_broken_version_is_passed_over(
    small_repository: Path, damage: Damage, said: str, failure_kind: FailureKind
) -> None:
    """A version that breaks its contract is UNAVAILABLE with the reason, and the old one goes on being picked."""
    before = load_catalog(small_repository, POLICY, 1, EMPTY)
    damage(second_version(small_repository))
    for catalog in (
        load_catalog(small_repository, POLICY, 2, before),
        load_catalog(small_repository, POLICY, 2, EMPTY),
    ):
        broken = catalog.find("iris", "2")
        assert broken.state is State.UNAVAILABLE
        assert said in broken.reason
        assert broken.failure_kind is failure_kind
        assert catalog.servable("iris").version == 1
        with pytest.raises(ModelNotReady, match="iris/2 is UNAVAILABLE"):
            catalog.servable("iris", "2")
    assert load_catalog(small_repository, POLICY, 2, before).find("iris", "1") is before.find("iris", "1")


def test_a_good_new_version_is_picked(small_repository: Path) -> None:
    """A new version that keeps its contract becomes the one that is picked."""
    before = load_catalog(small_repository, POLICY, 1, EMPTY)
    second_version(small_repository)
    assert load_catalog(small_repository, POLICY, 2, before).servable("iris").version == 2


def test_damage_under_a_served_version_is_noticed(small_repository: Path) -> None:
    """When a served version's files are damaged, what was loaded goes on serving, and the reason is shown."""
    before = load_catalog(small_repository, POLICY, 1, EMPTY)
    flip_a_byte(small_repository / "iris" / "1")
    servable = load_catalog(small_repository, POLICY, 2, before).servable("iris")
    assert servable is before.servable("iris")
    assert "still serving what was loaded before" in servable.reason


def test_a_mended_version_is_served_again(small_repository: Path) -> None:
    """A version that could not be loaded is tried again at every load, and its complaint ends when it is mended."""
    folder = second_version(small_repository)
    good = (folder / "contract.json").read_bytes()
    change_an_answer(folder)
    broken = load_catalog(small_repository, POLICY, 1, EMPTY)
    assert broken.find("iris", "2").state is State.UNAVAILABLE
    (folder / "contract.json").write_bytes(good)
    assert load_catalog(small_repository, POLICY, 2, broken).servable("iris").version == 2


def test_skew_may_be_allowed(small_repository: Path) -> None:
    """The operator may serve a version of another library, golden rows still held."""
    change_the_library(small_repository / "iris" / "1")
    policy = Repository(environment_skew="warn")
    catalog = load_catalog(small_repository, policy, 1, EMPTY)
    served = catalog.servable("iris")
    assert (served.version, served.failure_kind) == (1, FailureKind.ENVIRONMENT)
    assert served.reason.startswith("scikit-learn 0.24.2 at publish")
    assert load_catalog(small_repository, policy, 2, catalog).servable("iris").reason == served.reason
    change_an_answer(small_repository / "iris" / "1")
    refused = load_catalog(small_repository, policy, 3, EMPTY).find("iris")
    assert (refused.state, refused.failure_kind) == (State.UNAVAILABLE, FailureKind.GOLDEN)


def nameless(root: Path) -> Path:
    """A published forest that was fitted without names, on a sample that has them."""
    rows = pd.DataFrame(np.random.default_rng(1).normal(size=(80, 3)), columns=["a", "b", "c"])
    forest = RandomForestRegressor(4, random_state=0).fit(rows.to_numpy(), rows["a"] * 3 + rows["b"])
    publish("forest", forest, rows, repository=root)
    return root / "forest" / "1"


@pytest.mark.parametrize("other", [1, 2])
def test_swapped_names_of_a_nameless_matrix_are_noticed(tmp_path: Path, other: int) -> None:
    """Where no estimator and no golden row knows the columns' names, the checksums does."""
    skewed_environment.swap_columns(nameless(tmp_path), 0, other)
    broken = load_catalog(tmp_path, POLICY, 1, EMPTY).find("forest")
    assert (broken.state, broken.failure_kind) == (State.UNAVAILABLE, FailureKind.DAMAGED)
    assert "its columns or their order changed" in broken.reason


@pytest.mark.parametrize("by", [1.0001, 50.0])
def test_a_threshold_is_noticed_wherever_it_lies(tmp_path: Path, by: float) -> None:
    """One number of the artifact altered, the contract's hash made to fit: golden rows notice it, or the checksums."""
    folder = nameless(tmp_path)
    skewed_environment.move_a_threshold(folder, tree=3, by=by)
    broken = load_catalog(tmp_path, POLICY, 1, EMPTY).find("forest")
    assert broken.state is State.UNAVAILABLE
    assert broken.failure_kind is (FailureKind.GOLDEN if by > 2 else FailureKind.DAMAGED), broken.reason


def test_a_version_without_a_seal_is_served(tmp_path: Path) -> None:
    """What an earlier release published goes on being served."""
    (nameless(tmp_path) / "checksums.sha256").unlink()
    assert load_catalog(tmp_path, POLICY, 1, EMPTY).servable("forest").version == 1


def test_a_disabled_model_is_there_but_unloaded(small_repository: Path) -> None:
    """`enabled = false` makes every version UNAVAILABLE with that reason, and no candidate for a preflight."""
    assert model_toml.set_enabled(small_repository, "iris", False)
    off = load_catalog(small_repository, POLICY, 1, EMPTY).find("iris")
    assert (off.state, off.reason) == (State.UNAVAILABLE, "unloaded: enabled is false in model.toml")
    assert versions_to_load(small_repository, EMPTY) == []
    assert not model_toml.set_enabled(small_repository, "iris", False)
    assert model_toml.set_enabled(small_repository, "iris", True)
    assert load_catalog(small_repository, POLICY, 2, EMPTY).servable("iris@champion").version == 1


def test_a_broken_model_file_is_a_reason_everywhere(small_repository: Path) -> None:
    """Nothing served before: each version says that model.toml cannot be read; served before: so does what serves."""
    good = load_catalog(small_repository, POLICY, 1, EMPTY)
    words = small_repository / "iris" / "model.toml"
    kept = words.read_bytes()
    words.write_text("[aliases\n")
    for before, state in ((EMPTY, State.UNAVAILABLE), (good, State.READY)):
        found = load_catalog(small_repository, POLICY, 2, before).find("iris")
        assert (found.state, found.failure_kind, "iris/model.toml" in found.reason) == (
            state,
            FailureKind.CONTRACT,
            True,
        )
    words.write_bytes(kept)
    assert load_catalog(small_repository, POLICY, 3, good).servable("iris").reason == ""


def test_a_bad_model_file_keeps_what_served(small_repository: Path) -> None:
    """A model.toml that cannot be read leaves the versions and aliases of before, with the reason."""
    before = load_catalog(small_repository, POLICY, 1, EMPTY)
    (small_repository / "iris" / "model.toml").write_text("[aliases\n")
    after = load_catalog(small_repository, POLICY, 2, before)
    assert after.servable("iris@champion") is before.servable("iris")
    assert "iris/model.toml" in after.model("iris").reason


def test_a_repository_that_is_gone_keeps_what_served(small_repository: Path, tmp_path: Path) -> None:
    """When the repository cannot be read the registry goes on with what it has, and says why."""
    settings = load({"TABLESIDE__REPOSITORY__PATH": str(small_repository)})
    registry = Registry(settings, metrics.make(), make_offload(1))
    assert registry.not_ready() == "loading: the repository is being read"
    registry.reload(1)
    assert registry.not_ready() == ""
    small_repository.rename(tmp_path / "away")
    registry.reload(2)
    assert "does not exist" in registry.failure
    assert (registry.catalog.generation, registry.catalog.servable("iris").version) == (2, 1)
    (tmp_path / "away").rename(small_repository)
    registry.reload(3)
    assert registry.failure == ""


def test_a_removed_version_is_unloaded(small_repository: Path) -> None:
    """A version that left the repository is let go, and the others stay."""
    folder = second_version(small_repository)
    settings = load({"TABLESIDE__REPOSITORY__PATH": str(small_repository)})
    registry = Registry(settings, metrics.make(), make_offload(1))
    registry.reload(1)
    gone = registry.catalog.find("iris", "2")
    shutil.rmtree(folder)
    registry.reload(2)
    assert (gone.state, gone.reason) == (State.UNAVAILABLE, "no longer in the repository")
    assert registry.catalog.servable("iris").version == 1


def test_a_type_nobody_trusts_is_not_loaded(small_repository: Path) -> None:
    """A skops file that names a type on no list is refused by that name before anything of it is built."""
    import skops.io
    from sklearn.preprocessing import FunctionTransformer

    folder = small_repository / "iris" / "1"
    (folder / "model.skops").unlink()
    skops.io.dump(FunctionTransformer(shutil.rmtree), folder / "model.skops")
    fresh = sha256(folder / "model.skops")
    rewrite(folder, lambda c: msgspec.structs.replace(c, artifact=msgspec.structs.replace(c.artifact, sha256=fresh)))
    broken = load_catalog(small_repository, POLICY, 1, EMPTY).find("iris")
    assert broken.state is State.UNAVAILABLE
    assert "not trusted" in broken.reason
    assert "rmtree" in broken.reason
