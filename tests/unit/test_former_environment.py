"""Models that a new release cannot serve go on in the interpreter of the release that serves them now."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from tableside.cli import former_environment
from tableside.cli.release_check import Refused, Report, report
from tableside.errors import ContractBroken
from tableside.repository import model_toml
from tableside.settings import Repository, load

MINOR = ".".join(version("scikit-learn").split(".")[:2])


def test_a_model_moves_with_all_its_served_versions() -> None:
    """One whose other version the new release can serve stays, and so does one that is refused for another reason."""
    refused = [
        Refused("all", 1, "", is_skewed=True),
        Refused("all", 2, "", is_skewed=True),
        Refused("mixed", 1, "", is_skewed=True),
        Refused("unserved", 1, "", is_skewed=True),
        Refused("broken", 1, ""),
    ]
    served = {("all", 1), ("all", 2), ("mixed", 1), ("mixed", 2), ("broken", 1), ("other", 1)}
    assert former_environment.movable(refused, served) == ["all", "unserved"]


def test_the_settings_define_the_environment_and_assign_the_models(tmp_path: Path) -> None:
    """They are what the settings object reads; a name that another interpreter has is not used."""
    taken = Report("0", {f"release-{MINOR}": "/other/python"}, ("old=former",))
    name, variables = former_environment.variables(taken, ["wine"], sys.executable)
    assert name == f"release-{MINOR}-2"
    settings = load(variables | {"TABLESIDE__ENVIRONMENTS__FORMER__PYTHON": "/former/python"})
    assert settings.environments[name].python == sys.executable
    assert settings.repository.model_environments == ("old=former", f"wine={name}")
    same = Report("0", {f"release-{MINOR}": sys.executable})
    assert former_environment.variables(same, ["wine"], sys.executable)[0] == f"release-{MINOR}"
    with pytest.raises(ContractBroken, match="cannot be started"):
        former_environment.variables(same, ["wine"], str(tmp_path / "none"))


def test_the_settings_count_where_model_toml_names_none(tmp_path: Path) -> None:
    """The file of the model comes first."""
    policy = Repository(model_environments=("wine=old", "iris=old"))
    (tmp_path / "iris").mkdir()
    (tmp_path / "iris" / "model.toml").write_text('environment = "own"\n')
    found = {
        name: model_toml.environment_of(name, model_toml.read(tmp_path, name), policy)
        for name in ("wine", "iris", "rest")
    }
    assert found == {"wine": "old", "iris": "own", "rest": ""}
    assert model_toml.environment_of("wine", model_toml.read(tmp_path, "wine"), None) == ""


def test_a_release_names_what_it_cannot_serve(
    small_repository: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Another minor version is told apart from an environment that is missing; a model in its environment is fine."""
    (small_repository / "iris" / "model.toml").unlink(missing_ok=True)
    variables = {
        "TABLESIDE__REPOSITORY__PATH": str(small_repository),
        "TABLESIDE__SERVER__RUN_DIR": str(tmp_path / "run"),
    }
    assert report(load(variables)).refused == ()
    monkeypatch.setattr("tableside.repository.integrity.same_minor", lambda *_: False)
    (skewed,) = report(load(variables)).refused
    assert (skewed.name, skewed.version, skewed.is_skewed) == ("iris", 1, True)
    variables["TABLESIDE__REPOSITORY__MODEL_ENVIRONMENTS"] = "iris=old"
    (missing,) = report(load(variables)).refused
    assert ("'old'" in missing.reason, missing.is_skewed) == (True, False)
    variables["TABLESIDE__ENVIRONMENTS__OLD__PYTHON"] = sys.executable
    assert report(load(variables)).refused == ()
