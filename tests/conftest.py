"""Fixtures for all tests: the example models, published once per session, and applications that serve them."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from examples import train
from tableside import settings as app_settings
from tableside.contracts.schema import Input
from tableside.factory import create_app
from tableside.model_process.environment_pools import Environments
from tableside.process import worker_slots
from tableside.process.generation_words import GenerationWords
from tableside.process.offload import make_offload
from tableside.publishing import effort
from tableside.repository.model_toml import ColumnConfig, ModelConfig
from tableside.serving.catalog import Catalog, Model
from tableside.serving.policy import make_policy
from tableside.serving.registry import Registry
from tableside.serving.reloading import THREADS
from tableside.serving.servable import Servable
from tableside.serving.worker_status import start_worker
from tableside.settings import Settings
from tableside.telemetry import metrics
from tableside.web.extensions import EXTENSION_KEY
from tests.fakes import sum_contract
from tests.own_code_models import Trained
from tests.own_code_models import train as train_with_own_code
from tests.waiting import wait_until

CONTROL = {"tableside.plane": "control"}
"""WSGI keys of a request that arrives on the control plane."""
KEY = "a-key-of-the-tests"
BEARER = {"Authorization": f"Bearer {KEY}"}

_QUIET = {
    "deadline": None, "suppress_health_check": list(HealthCheck), "database": None,
    "derandomize": "CI" in os.environ,  # in CI the inputs are the same each time, elsewhere they are new
}  # fmt: skip
hypothesis_settings.register_profile("default-run", max_examples=40, **_QUIET)
hypothesis_settings.register_profile("few", max_examples=8, **_QUIET)
hypothesis_settings.load_profile(os.environ.get("TABLESIDE_HYPOTHESIS", "default-run"))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes many seconds; `make unit` leaves it to `make unit-slow`")
    config.addinivalue_line("markers", "fuzz: sends many generated inputs; only `make fuzz` runs it")
    config.addinivalue_line("markers", "soak: a soak of a minute; only `make soak` runs it")
    config.addinivalue_line("markers", "every_blas: slow, and yet run with another kernel of BLAS")
    config.addinivalue_line(
        "markers", "no_greenlets: the code under test does not depend on the kind of thread; not repeated under gevent"
    )
    config.addinivalue_line(
        "markers", "processes: the code under test runs in other processes; not repeated under gevent"
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests recorded with `record_property("said", ...)`, also in runs with several processes."""
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            for name, value in report.user_properties:
                if name == "said":
                    terminalreporter.write_line(f"{report.nodeid.rpartition('::')[2]}: {value}")


@pytest.fixture(autouse=True, scope="session")
def plain_environment() -> Iterator[None]:
    """Remove Tableside's variables from the environment, so that settings of the developer's shell change no test."""
    with pytest.MonkeyPatch.context() as patch:
        for variable in list(os.environ):
            if variable.startswith(("TABLESIDE__", "PROMETHEUS_")) or variable == "TABLESIDE_CONFIG":
                patch.delenv(variable)
        yield


@contextmanager
def publishing_with(full: effort.Effort) -> Iterator[None]:
    """Let `publish` compare and measure so much in this process when it is not asked to be quick."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["tableside.publishing.publish"], "FULL", full)
        yield


@pytest.fixture(autouse=True, scope="session")
def shorter_publishing() -> Iterator[None]:
    """Let `publish` compare fewer rows and measure for shorter times, about as with `quick`: tests publish very often.

    All steps are run, conversion to ONNX too. Commands in processes of their own, tests of the equivalence check, and
    those with `publishing_with(FULL)` do what is done for a user.
    """
    with publishing_with(effort.QUICK._replace(converts=True, timing_s=0.02)):
        yield


@cache
def train_examples() -> dict[str, tuple[Any, pd.DataFrame]]:
    """Train each example once in this process."""
    return {name: make() for name, make in train.EXAMPLES.items()}


@pytest.fixture(scope="session")
def trained() -> dict[str, tuple[Any, pd.DataFrame]]:
    """By the name of each example: the fitted estimator and its sample."""
    return train_examples()


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The four examples as `publish_all` writes them. All tests share it: copy a model before changing it."""
    root = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        for name, pair in train_examples().items():
            patch.setitem(train.EXAMPLES, name, lambda pair=pair: pair)
        train.publish_all(root)
    return root


MakeSettings = Callable[..., Settings]


@pytest.fixture(scope="session")
def make_settings() -> MakeSettings:
    """Make settings from a repository, a run folder with an admin key, and `section__key="value"` pairs."""

    def make(repository: Path, run_dir: Path, **more: str) -> Settings:
        environ = {"repository__path": str(repository), "server__run_dir": str(run_dir), **more}
        run_dir.mkdir(parents=True, exist_ok=True)
        (run_dir / "admin.key").write_text(KEY + "\n", encoding="ascii")
        return app_settings.load({f"TABLESIDE__{key.upper()}": value for key, value in environ.items()})

    return make


@pytest.fixture(scope="session")
def settings(make_settings: MakeSettings, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return make_settings(repository, tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="session")
def app(settings: Settings) -> Flask:
    """An application that serves the four examples. All tests share it: use `make_app` to change its state."""
    made = create_app(settings)
    made.extensions[EXTENSION_KEY].registry.reload(1)
    return made


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def small_repository(repository: Path, tmp_path: Path) -> Path:
    """A repository for one test, with a copy of iris."""
    root = tmp_path / "models"
    shutil.copytree(repository / "iris", root / "iris")
    return root


MakeApp = Callable[..., Flask]


@pytest.fixture
def make_app(make_settings: MakeSettings, small_repository: Path, tmp_path: Path) -> MakeApp:
    """Make an application for one test, over `small_repository`.

    load=False: the repository is not read. empty=True: another repository, without models, is read; see `serve`.
    environments: the model processes of models that name an environment.
    Models are loaded without a preflight, which would start a process in each test; `app` runs preflights.
    """

    def make(load: bool = True, empty: bool = False, environments: Environments | None = None, **more: str) -> Flask:
        (tmp_path / "empty").mkdir(exist_ok=True)
        settings = make_settings(tmp_path / "empty" if empty else small_repository, tmp_path / "run", **more)
        made = create_app(settings, Registry(settings, metrics.make(), make_offload(THREADS), None, environments))
        if load:
            registry_of(made).reload(1)
        return made

    return make


def registry_of(app: Flask) -> Registry:
    registry: Registry = app.extensions[EXTENSION_KEY].registry
    return registry


@pytest.fixture
def worker(make_app: MakeApp, tmp_path: Path) -> Iterator[Flask]:
    """An application whose registry has a worker slot and follows generations, as in a worker."""
    app = make_app(load=False, repository__poll_interval_ms="10", repository__watch_interval_s="0")
    slot = worker_slots.acquire(tmp_path / "run" / "worker_slots")
    registry = registry_of(app)
    follower = start_worker(registry, slot, app.extensions[EXTENSION_KEY].settings, "test")
    registry.wait_loaded(30)
    words = GenerationWords.open(tmp_path / "run" / "generations")
    assert wait_until(lambda: words.generation_of(slot.number), 30), "it says so after its status file was written"
    yield app
    follower.stop()
    slot.release()


@pytest.fixture
def hung_worker(tmp_path: Path) -> Iterator[worker_slots.WorkerSlot]:
    """The slot of a worker that answers requests, and prepares nothing."""
    slot = worker_slots.acquire(tmp_path / "run" / "worker_slots")
    words = GenerationWords.open(tmp_path / "run" / "generations")
    words.begin(slot.number)
    words.serves(slot.number, 1)
    slot.write_status({"pid": 424242, "generation": 0})
    yield slot
    slot.release()


def cells(frame: pd.DataFrame) -> list[list[Any]]:
    """The rows of a frame as JSON values; missing values are null."""
    return [
        [
            None if value is None or value != value else value.item() if hasattr(value, "item") else value
            for value in row
        ]
        for row in frame.astype(object).itertuples(index=False, name=None)
    ]


def error_of(response: Any) -> dict[str, Any]:
    """The error object of a response. Checks that it is JSON and holds the response's status."""
    assert response.content_type == "application/json", response.content_type
    content: dict[str, Any] = response.get_json()
    assert content["status"] == response.status_code
    assert content["error"]
    return content


QUICK = {"predict__inline_below_ms": "1000", "predict__in_thread_above_bytes": str(2**40), "log__level": "error"}
"""Settings for tests that send thousands of requests: all work on the caller's thread, and no access log."""


def serve(app: Flask, models: Mapping[str, tuple[Input, Any]], columns: ColumnConfig | None = None) -> None:
    """Serve these runtimes, each under its input schema, in an application of `make_app(empty=True)`."""
    found = {}
    for name, (schema, runtime) in models.items():
        servable = Servable(name, 1, sum_contract(schema, name=name))
        servable.ready(runtime, 0.0)
        config = ModelConfig(columns=columns or ColumnConfig())
        servable.adopt(make_policy(config, servable.contract, app.extensions[EXTENSION_KEY].settings))
        found[name] = Model(name, (servable,), config=config)
    registry_of(app).catalog = Catalog(1, found)


@pytest.fixture(scope="session")
def with_own_code(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Models that were trained with modules of the trainer's own, which this process cannot import."""
    return train_with_own_code(tmp_path_factory.mktemp("trainer"))
