"""Which version a worker answers with: aliases move only to loaded versions, and a bad edit changes nothing."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tableside.errors import ModelNotFound
from tableside.repository import model_toml_edits, release_edits
from tableside.serving.registry import Registry
from tests.unit.test_reloading import Gate, copy, registry_for


def write(root: Path, text: str) -> None:
    (root / "iris" / "model.toml").write_text(text)


def unnamed(registry: Registry) -> int:
    """The version that a request without a version gets now."""
    return registry.wait_servable("iris", None, 0.0).version


def test_default_answers_requests_without_a_version(small_repository: Path) -> None:
    """A version that is published beside a `default` takes no unnamed traffic, and answers by its number."""
    write(small_repository, "[aliases]\ndefault = 1\n")
    registry = registry_for(small_repository)
    registry.reload(1)
    copy(small_repository, "iris", 2)
    registry.reload(2)
    asked = [registry.wait_servable("iris", each, 0.0).version for each in (None, "default", "2", "latest")]
    assert asked == [1, 1, 2, 2]
    model_toml_edits.set_alias(small_repository, "iris", "default", 2)
    registry.reload(3)
    assert unnamed(registry) == 2


@pytest.mark.parametrize("policy", ["", 'versions = "latest"\n'])
def test_an_alias_moves_when_its_target_is_loaded(
    small_repository: Path, monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    """Until the load of the new target ends, the alias answers with the old one, also where `versions` drops that."""
    write(small_repository, f"{policy}[aliases]\ndefault = 1\n")
    registry = registry_for(small_repository)
    registry.reload(1)
    copy(small_repository, "iris", 2)
    write(small_repository, f"{policy}[aliases]\ndefault = 2\n")
    gate = Gate(monkeypatch, closed=lambda key: True)
    reload = threading.Thread(target=registry.reload, args=(2,))
    reload.start()
    assert gate.entered.wait(60)
    assert unnamed(registry) == 1
    gate.open.set()
    reload.join(60)
    assert unnamed(registry) == 2


@pytest.mark.parametrize("target", [2, 22])
def test_an_alias_stays_if_its_target_does_not_load(small_repository: Path, target: int) -> None:
    """A hand edit that names a damaged or a missing version moves nothing in a worker that serves."""
    write(small_repository, "[aliases]\ndefault = 1\n")
    registry = registry_for(small_repository)
    registry.reload(1)
    (copy(small_repository, "iris", 2) / "contract.json").write_bytes(b"{}")
    write(small_repository, f"[aliases]\ndefault = {target}\n")
    registry.reload(2)
    assert unnamed(registry) == 1
    assert list(registry.catalog.waiting_aliases()) == [("iris", "default", target, 1)]


def test_a_new_default_waits_for_its_target(small_repository: Path) -> None:
    """Without a `default` the highest version answers, and goes on until the version that `default` names can."""
    registry = registry_for(small_repository)
    registry.reload(1)
    broken = copy(small_repository, "iris", 2)
    good = (broken / "contract.json").read_bytes()
    (broken / "contract.json").write_bytes(b"{}")
    write(small_repository, "[aliases]\ndefault = 2\n")
    registry.reload(2)
    assert unnamed(registry) == 1
    (broken / "contract.json").write_bytes(good)
    registry.reload(3)
    assert unnamed(registry) == 2


def test_a_new_worker_answers_with_default_only(small_repository: Path) -> None:
    """A worker that has served nothing yet does not put another version in the place of the one that is written."""
    write(small_repository, "[aliases]\ndefault = 22\n")
    registry = registry_for(small_repository)
    registry.reload(1)
    with pytest.raises(ModelNotFound, match="alias 'default' of model 'iris' points at version 22"):
        unnamed(registry)


def test_a_bad_edit_leaves_what_is_served(small_repository: Path) -> None:
    """Versions and aliases stay as they are, with the line and the key as a warning."""
    copy(small_repository, "iris", 2)
    write(small_repository, "[aliases]\ndefault = 1\n")
    registry = registry_for(small_repository)
    registry.reload(1)
    write(small_repository, "[aliases]\ndefault = 2\n[batching]\nmax_rows = 5\n")
    registry.reload(2)
    assert (unnamed(registry), registry.wait_servable("iris", "2", 0.0).version) == (1, 2)
    reason = registry.wait_servable("iris", None, 0.0).reason
    assert "iris/model.toml: line 4: `batching.max_rows` is no key. Did you mean 'max_batch_rows'?" in reason


def test_a_folder_with_a_deleted_number_is_not_served(small_repository: Path) -> None:
    """Another version that came by rsync under the number of a deleted one is refused, and the others serve."""
    copy(small_repository, "iris", 2)
    release_edits.remove_folders([release_edits.delete(small_repository, "iris", 2)])
    contract = copy(small_repository, "iris", 2) / "contract.json"
    contract.write_bytes(contract.read_bytes() + b"\n")
    registry = registry_for(small_repository)
    registry.reload(1)
    assert unnamed(registry) == 1
    assert "iris/2 was deleted at" in registry.catalog.find("iris", "2").reason


def test_retired_versions_are_not_served(small_repository: Path) -> None:
    """The highest version that is not retired answers, and a request for a retired one is told what there is."""
    copy(small_repository, "iris", 2)
    registry = registry_for(small_repository)
    registry.reload(1)
    release_edits.retire(small_repository, "iris", 2)
    registry.reload(2)
    assert unnamed(registry) == 1
    with pytest.raises(ModelNotFound, match="no version or alias '2'; it has 1"):
        registry.wait_servable("iris", "2", 0.0)


def test_latest_goes_on_until_the_next_version_is_loaded(
    small_repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `versions = "latest"` the old version answers while the new one loads, and if it does not."""
    write(small_repository, 'versions = "latest"\n')
    registry = registry_for(small_repository)
    registry.reload(1)
    broken = copy(small_repository, "iris", 2) / "contract.json"
    good = broken.read_bytes()
    broken.write_bytes(b"{}")
    registry.reload(2)
    assert unnamed(registry) == 1
    broken.write_bytes(good)
    gate = Gate(monkeypatch, closed=lambda key: True)
    reload = threading.Thread(target=registry.reload, args=(3,))
    reload.start()
    assert gate.entered.wait(60)
    assert unnamed(registry) == 1
    gate.open.set()
    reload.join(60)
    assert [servable.version for servable in registry.catalog] == [2]


def test_lists_of_models_hold_with_a_default_that_is_missing(small_repository: Path) -> None:
    """A new worker lists what can answer, and leaves out a model whose `default` names a version that is not there."""
    copy(small_repository, "tiny")
    write(small_repository, "[aliases]\ndefault = 22\n")
    registry = registry_for(small_repository)
    registry.reload(1)
    assert [(servable.name, servable.version) for servable in registry.catalog.answering()] == [("tiny", 1)]
