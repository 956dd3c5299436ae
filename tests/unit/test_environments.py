"""Environments: settings, venvs made from locked files, and versions that run in them."""

from __future__ import annotations

import shutil
import sys
import tempfile
import tomllib
import venv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import joblib
import pytest
from click.testing import CliRunner
from flask import Flask
from sklearn.linear_model import LinearRegression

from tableside import settings as app_settings
from tableside.cli import main
from tableside.contracts.environment import environment
from tableside.deployment import model_programs
from tableside.errors import ContractBroken, EnvironmentFailed, SettingsError
from tableside.model_process import known_environments, venvs
from tableside.model_process.environment_pools import Environments, private
from tableside.model_process.remote_runtime import RemoteRuntime
from tableside.preflight import runner
from tableside.preflight.checks import check_version
from tableside.preflight.results import VersionFiles
from tableside.repository import integrity
from tableside.serving.catalog import EMPTY
from tableside.serving.lifecycle import State
from tableside.serving.loader import load_catalog
from tableside.serving.scan import versions_to_load
from tableside.settings import Environment, Repository, Settings

pytestmark = [pytest.mark.processes, pytest.mark.slow]

OWN = Environment(sys.executable)


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="en-") as made:
        yield Path(made)


@pytest.fixture
def pool() -> Iterator[Callable[..., Environments]]:
    """Make environments whose processes end with the test. Keywords: the environments by name."""
    made: list[Environments] = []

    def make(**named: Environment) -> Environments:
        made.append(private(named, 60.0))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def bare_python(folder: Path) -> str:
    """The interpreter of an environment without packages."""
    venv.create(folder / "bare", with_pip=False)
    return str(folder / "bare" / "bin" / "python")


Pool = Callable[..., Environments]


def settings_in(folder: Path, **more: str) -> Settings:
    values = {"SERVER__RUN_DIR": str(folder / "run"), "REPOSITORY__PATH": str(folder / "models"), **more}
    (folder / "run").mkdir(exist_ok=True)
    return app_settings.load({f"TABLESIDE__{key}": value for key, value in values.items()})


def test_environments_are_read_from_file_and_variables(folder: Path) -> None:
    """A variable adds to the file and overrides it, key by key."""
    file = folder / "tableside.toml"
    file.write_text('[environments.old]\npython = "/a/python"\nprocesses = 3\n[environments."1.6"]\npython = "b"\n')
    read = app_settings.load({"TABLESIDE__ENVIRONMENTS__OLD__PYTHON": "/c/python"}, file).environments
    assert read == {"old": Environment("/c/python", 3), "1.6": Environment("b")}


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"TABLESIDE__ENVIRONMENTS__OLD": "x"}, "ENVIRONMENTS__NAME__PYTHON"),
        ({"TABLESIDE__ENVIRONMENTS__OLD__PIP": "x"}, "environments"),
        ({"TABLESIDE__ENVIRONMENTS__OLD__PROCESSES": "2"}, "python"),
        ({"TABLESIDE__ENVIRONMENTS__-X__PYTHON": "x"}, "lower-case letters"),
    ],
)
def test_wrong_environments_are_refused(environ: dict[str, str], said: str) -> None:
    """The error names the setting."""
    with pytest.raises(SettingsError, match=said):
        app_settings.load(environ)


def test_made_environments_are_known_without_a_setting(folder: Path) -> None:
    """A folder counts when its locked file has been written, which `env create` does last."""
    settings = settings_in(folder, ENVIRONMENTS__OLD__PYTHON="/x/python")
    for name in ("half", "whole", "old"):
        (folder / "environments" / name / "bin").mkdir(parents=True)
        (folder / "environments" / name / "bin" / "python").symlink_to(sys.executable)
    for name in ("whole", "old"):
        (folder / "environments" / name / known_environments.LOCKED).write_text("")
    known = known_environments.known(settings)
    assert sorted(known) == ["old", "whole"]
    assert known["old"].python == "/x/python"


def with_environment(root: Path, name: str) -> None:
    (root / "iris" / "model.toml").write_text(f'environment = "{name}"\n')


def test_a_version_runs_in_the_environment_that_its_model_names(small_repository: Path, pool: Pool) -> None:
    """It is loaded by a model process, and its golden rows hold there."""
    with_environment(small_repository, "own")
    runtime = check_version(small_repository, "iris", 1, Repository(), None, pool(own=OWN))
    assert isinstance(runtime, RemoteRuntime)


def test_an_unknown_environment_makes_the_version_unavailable(small_repository: Path, pool: Pool) -> None:
    """The reason says what to write where."""
    with_environment(small_repository, "gone")
    catalog = load_catalog(small_repository, Repository(), 1, EMPTY, None, None, pool(own=OWN))
    (servable,) = catalog
    assert servable.state is State.UNAVAILABLE
    assert "names the environment 'gone', which is not defined on this host. There is own." in servable.reason
    assert "tableside env create gone -r requirements.txt" in servable.reason
    assert "[environments.gone]" in servable.reason


def test_another_scikit_learn_in_the_environment_is_refused(small_repository: Path) -> None:
    """The versions of the environment count, not those of the server, and both are named."""

    class Other:
        name = "old"

        def versions_of_libraries(self, give_up_at_s: float) -> dict[str, str]:
            return {"scikit-learn": "1.2.2"}

    with_environment(small_repository, "old")
    fakes = Environments(lambda: {"old": OWN}, lambda name, each: Other())  # type: ignore[arg-type,return-value]
    with pytest.raises(ContractBroken, match="is 1.2.2 in its environment") as caught:
        check_version(small_repository, "iris", 1, Repository(), None, fakes)
    assert environment()["scikit-learn"] in str(caught.value)


def test_the_preflight_runs_in_the_environment(small_repository: Path) -> None:
    """A preflight process starts a model process for itself."""
    with_environment(small_repository, "own")
    wanted = [VersionFiles("iris", 1, None)]
    (found,) = filter(None, runner.run(small_repository, wanted, Repository(), None, {"own": OWN}))
    assert not found[1].failure_kind, found[1]
    (found,) = filter(None, runner.run(small_repository, wanted, Repository(), None, {}))
    assert "is not defined on this host" in found[1].reason


def test_another_environment_loads_the_version_again(small_repository: Path, folder: Path, pool: Pool) -> None:
    """A change of the name in model.toml, or of the packages in the environment, makes a reload load it again."""
    (folder / "bin").mkdir()
    (folder / "bin" / "python").symlink_to(sys.executable)
    (folder / "pyvenv.cfg").write_text("")
    places = pool(own=OWN, other=Environment(str(folder / "bin" / "python")))
    with_environment(small_repository, "own")
    catalog = load_catalog(small_repository, Repository(), 1, EMPTY, None, None, places)
    assert next(iter(catalog)).state is State.READY, next(iter(catalog)).reason
    assert not versions_to_load(small_repository, catalog, None, places)
    with_environment(small_repository, "other")
    (first,) = versions_to_load(small_repository, catalog, None, places)
    shutil.rmtree(folder / "bin")
    (second,) = versions_to_load(small_repository, catalog, None, places)
    assert first.environment != second.environment


MakeApp = Callable[..., Flask]


def test_requests_are_answered_by_a_model_process(small_repository: Path, make_app: MakeApp, pool: Pool) -> None:
    """Over HTTP nothing differs: the same answers, 400 for what the estimator refuses."""
    with_environment(small_repository, "own")
    app = make_app(environments=pool(own=OWN))
    body: dict[str, Any] = {"instances": [[5.1, 3.5, 1.4, 0.2]] * 3}
    answer = app.test_client().post("/v1/models/iris:predict", json=body)
    assert answer.get_json() == {"predictions": ["setosa"] * 3}


def test_supervisord_gets_a_program_for_each_environment(folder: Path) -> None:
    """Paths with spaces, percent signs and quotes are written as supervisor reads them."""
    run = folder / "a b%c"
    run.mkdir()
    settings = settings_in(
        folder, SERVER__RUN_DIR=str(run), ENVIRONMENTS__OLD__PYTHON="/x y/python", SERVER__WORKERS="3"
    )
    assert model_programs.write(settings)
    assert not model_programs.write(settings)
    text = model_programs.render(settings)
    assert "[program:model_old]\n" in text
    assert "command='/x y/python' -I " in text
    assert "numprocs=3\n" in text
    assert "/a b%%c/log/model_old.log\n" in text
    assert "%(process_num)d.sock'" in text


def test_commands_of_environments(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`env list` and `env check` name interpreter, versions and problems."""
    monkeypatch.setenv("TABLESIDE__SERVER__RUN_DIR", str(folder / "run"))
    run = CliRunner().invoke
    assert "no environments in the settings" in run(main, ["env", "list"]).output
    monkeypatch.setenv("TABLESIDE__ENVIRONMENTS__OWN__PYTHON", sys.executable)
    monkeypatch.setenv("TABLESIDE__ENVIRONMENTS__LOST__PYTHON", "/none/python")
    listed = run(main, ["env", "list"]).output
    assert environment()["scikit-learn"] in listed
    assert "cannot be started" in listed
    checked = run(main, ["env", "check", "own"])
    assert checked.exit_code == 0, checked.output
    assert f"scikit-learn {environment()['scikit-learn']}" in checked.output
    refused = run(main, ["env", "check", "gone"])
    assert refused.exit_code == 2
    assert "there is no environment 'gone'; there is lost, own" in refused.output


def test_an_environment_that_lacks_a_package_says_how_to_install_it(
    folder: Path, bare_python: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trainer's environment seldom has skops. `env check` and `publish` say so before anything is tried in it."""
    monkeypatch.setenv("TABLESIDE__SERVER__RUN_DIR", str(folder / "run"))
    monkeypatch.setenv("TABLESIDE__ENVIRONMENTS__BARE__PYTHON", bare_python)
    (folder / "m.joblib").write_bytes(b"not read")
    (folder / "s.csv").write_text("a\n1\n")
    words = [str(folder / "m.joblib"), "--sample", str(folder / "s.csv"), "--environment", "bare"]
    repository = ["--repository", str(folder / "models")]
    lacks = (
        "'bare' lacks scikit-learn, numpy, pandas{}, which a model process imports. Install what is missing into it: "
    )
    install = f"{bare_python} -m pip install scikit-learn numpy pandas"
    for command, more in (
        (["env", "check", "bare"], " skops"),
        (["publish", "m", *words, *repository], " skops"),
        (["publish", "m", *words, *repository, "--as-pickle"], ""),
    ):
        done = CliRunner().invoke(main, command)
        assert done.exit_code == 2, done.output
        assert lacks.format(f",{more}" if more else "") + install + more + "\n" in done.output
    assert not (folder / "models" / "m").exists()


def test_an_environment_that_is_not_defined_says_how_to_define_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The option is named, not a file that the user never wrote; the two lines to paste are valid TOML."""
    monkeypatch.setenv("TABLESIDE__SERVER__RUN_DIR", str(folder / "run"))
    (folder / "s.csv").write_text("a\n1\n")
    joblib.dump(LinearRegression().fit([[1.0]], [1.0]), folder / "m.joblib")
    words = ["m", str(folder / "m.joblib"), "--sample", str(folder / "s.csv"), "--environment", "gone"]
    done = CliRunner().invoke(main, ["publish", *words, "--repository", str(folder / "models")])
    assert done.exit_code == 2
    assert (
        "--environment names the environment 'gone', which is not defined on this host. There is none." in done.output
    )
    assert "tableside env create gone -r requirements.txt" in done.output
    assert "run `tableside restart`" in done.output
    release = environment()["scikit-learn"]
    assert f"name scikit-learn=={release}, which wrote m.joblib, and numpy, pandas, skops, and what else" in done.output
    lines = done.output.split("`")
    assert tomllib.loads("\n".join(line for line in lines if line.startswith(("[environments", "python =")))) == {
        "environments": {"gone": {"python": "/path/to/venv/bin/python"}}
    }


def test_an_environment_that_cannot_be_made_leaves_nothing(folder: Path) -> None:
    """Each failure has its sentence, and no folder is left behind."""
    settings = settings_in(folder)
    file = folder / "requirements.txt"

    def refusal(name: str, content: str, python: str = sys.executable) -> str:
        file.write_text(content)
        with pytest.raises(EnvironmentFailed) as caught:
            venvs.create(settings, name, file, python, lambda step: None)
        return str(caught.value)

    assert "lower-case" in refusal("No", "")
    assert "cannot make an environment: No such file" in refusal("old", "", "/none/python")
    assert "lacks scikit-learn, numpy, pandas, skops" in refusal("old", "# nothing --hash=\n")
    assert "lacks scikit-learn, numpy, pandas, skops" in refusal("old", "six==1.17.0\n")
    assert "six==1.17.0 --hash=sha256:" in file.with_suffix(".locked.txt").read_text()
    assert "pip cannot resolve" in refusal("old", "no-such-package-of-tableside==1\n")
    file.unlink()
    with pytest.raises(EnvironmentFailed, match="cannot be read"):
        venvs.create(settings, "old", file, sys.executable, lambda step: None)
    assert not list((folder / "environments").iterdir())


def test_a_contract_knows_nothing_of_environments(small_repository: Path) -> None:
    """A repository names an environment in model.toml only, which the operator writes."""
    assert "environment =" not in (small_repository / "iris" / "1" / "contract.json").read_text()
    assert integrity.read_contract(small_repository, "iris", 1).environment["scikit-learn"]
