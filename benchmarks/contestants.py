"""The servers that are compared: how each is installed, started and queried.

peers/NAME/README.md lists what is tuned for each server and why that is fair.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import wires
from benchmarks.environments import PEERS
from benchmarks.free_ports import free_port
from benchmarks.models import Model
from benchmarks.processes import clean_environ
from benchmarks.wires import Wire

PROJECT = Path(__file__).resolve().parents[1]
WORKERS = 2
DIRECT, NGINX, NGINX_KEPT = "direct", "nginx", "nginx, kept connections"


@dataclass(frozen=True)
class Place:
    """Where one server runs: a scratch folder, the bin folder of its environment, the model and its TCP port."""

    folder: Path
    bin: Path
    model: Model
    port: int

    @property
    def unix_socket(self) -> Path:
        return self.folder / "api.sock"


@dataclass(frozen=True)
class Launch:
    """The command that starts a server, with its environment variables and working directory."""

    command: Sequence[str]
    environ: dict[str, str]
    folder: Path


@dataclass(frozen=True)
class Contestant:
    """One server in the comparison.

    environment: its folder in peers/; None is the environment of the harness. ways: how it is reached,
    DIRECT or through nginx (Tableside's own nginx, or one of the harness for other servers). models: names of the
    models it serves; None is all. checked: whether its answers are compared with the estimator's.
    own_nginx: whether it starts nginx itself.
    """

    name: str
    environment: str | None
    launch: Callable[[Place], Launch]
    wire: Callable[[Model], Wire]
    ways: tuple[str, ...] = (DIRECT, NGINX)
    models: tuple[str, ...] | None = None
    checked: bool = True
    own_nginx: bool = False


def _tableside(place: Place, nginx: str) -> Launch:
    environ = clean_environ(
        PYTHONPATH=str(PROJECT / "src"),
        TABLESIDE__SERVER__LISTEN=f"127.0.0.1:{place.port}",
        TABLESIDE__SERVER__ADMIN_LISTEN=f"127.0.0.1:{free_port()}",
        TABLESIDE__SERVER__RUN_DIR=str(place.folder / "run"),
        TABLESIDE__SERVER__WORKERS=str(WORKERS),
        TABLESIDE__SERVER__NGINX=nginx,
        TABLESIDE__REPOSITORY__PATH=str(place.model.repository),
    )
    return Launch([str(place.bin / "tableside"), "run"], environ, PROJECT)


def _tableside_direct(place: Place) -> Launch:
    return _tableside(place, "off")


def _tableside_nginx(place: Place) -> Launch:
    return _tableside(place, "on")


def _in_peer(place: Place, peer: str, command: Sequence[str], **more: str) -> Launch:
    """Return a launch in a copy of peers/`peer`, where gunicorn does not read this project's gunicorn.conf.py."""
    folder = place.folder / peer
    shutil.copytree(PEERS / peer, folder, dirs_exist_ok=True)
    environ = clean_environ(
        PATH=f"{place.bin}:{os.environ.get('PATH', '')}",
        BENCH_MODEL=str(place.model.joblib_file),
        BENCH_KIND=place.model.kind,
        BENCH_PORT=str(place.port),
        **more,
    )
    return Launch([str(place.bin / command[0]), *command[1:]], environ, folder)


def _gunicorn(place: Place, peer: str, worker_class: str, **more: str) -> Launch:
    command = ["gunicorn", "--worker-class", worker_class, "--workers", str(WORKERS), "--no-control-socket"]
    command += ["--bind", f"127.0.0.1:{place.port}", "--bind", f"unix:{place.unix_socket}"]
    return _in_peer(place, peer, [*command, "constant:application" if peer == "bare" else "app:app"], **more)


def _bare_tableside(place: Place) -> Launch:
    return _gunicorn(place, "bare", "tableside.server.worker.TablesideWorker", PYTHONPATH=str(PROJECT / "src"))


def _bare_gevent(place: Place) -> Launch:
    return _gunicorn(place, "bare", "gevent")


def _bare_pywsgi(place: Place) -> Launch:
    return _gunicorn(place, "bare", "gevent_pywsgi")


def _flask(place: Place) -> Launch:
    return _gunicorn(place, "flask", "gevent")


def _fastapi(place: Place) -> Launch:
    command = ["uvicorn", "app:app", "--port", str(place.port), "--workers", str(WORKERS), "--no-access-log"]
    return _in_peer(place, "fastapi", command)


def _litserve(place: Place) -> Launch:
    return _in_peer(place, "litserve", ["python", "server.py"])


def _bentoml(place: Place) -> Launch:
    more = {"BENTOML_CONFIG": "config.yaml", "BENTOML_DO_NOT_TRACK": "True", "BENTOML_HOME": str(place.folder / "home")}
    command = ["bentoml", "serve", "service:Served", "--host", "127.0.0.1", "--port", str(place.port)]
    return _in_peer(place, "bentoml", command, **more)


def _mlflow(place: Place) -> Launch:
    saved = place.model.joblib_file.with_suffix(".mlflow")
    launch = _in_peer(
        place,
        "mlflow",
        ["mlflow", "models", "serve", "--model-uri", str(saved), "--env-manager", "local", "--workers", str(WORKERS)]
        + ["--host", "127.0.0.1", "--port", str(place.port)],
        UVICORN_ACCESS_LOG="false",
        MLFLOW_TRACKING_URI=f"sqlite:///{place.folder}/mlflow.db",
        MLFLOW_DISABLE_TELEMETRY="true",
    )
    if not saved.exists():
        command = [str(place.bin / "python"), "save.py", str(place.model.joblib_file), str(saved)]
        subprocess.run(command, cwd=launch.folder, env=launch.environ, check=True, capture_output=True, timeout=120)
    return launch


def _mlserver(place: Place) -> Launch:
    launch = _in_peer(place, "mlserver", ["mlserver", "start", "."])
    settings = json.loads((launch.folder / "settings.json").read_text())
    ports = {"http_port": place.port, "grpc_port": free_port(), "metrics_port": free_port()}
    (launch.folder / "settings.json").write_text(json.dumps({**settings, **ports}))
    model = {
        "name": place.model.name,
        "implementation": "mlserver_sklearn.SKLearnModel",
        "max_batch_size": 64,
        "max_batch_time": 0.001,
        "parameters": {"uri": str(place.model.joblib_file)},
    }
    (launch.folder / "model-settings.json").write_text(json.dumps(model))
    return launch


_FIRST = ("logistic",)
CONTESTANTS = {
    each.name: each
    for each in (
        Contestant("tableside", None, _tableside_direct, wires.tableside, (DIRECT,)),
        Contestant("tableside-nginx", None, _tableside_nginx, wires.tableside, (NGINX,), own_nginx=True),
        Contestant(
            "bare-tableside", None, _bare_tableside, wires.constant, (DIRECT, NGINX, NGINX_KEPT), _FIRST, checked=False
        ),
        Contestant(
            "bare-gevent", "bare", _bare_gevent, wires.constant, (DIRECT, NGINX, NGINX_KEPT), _FIRST, checked=False
        ),
        Contestant(
            "bare-pywsgi", "bare", _bare_pywsgi, wires.constant, (DIRECT, NGINX, NGINX_KEPT), _FIRST, checked=False
        ),
        Contestant("flask", "flask", _flask, wires.by_hand),
        Contestant("fastapi", "fastapi", _fastapi, wires.by_hand),
        Contestant("mlserver", "mlserver", _mlserver, wires.mlserver),
        Contestant("bentoml", "bentoml", _bentoml, wires.bento),
        Contestant("mlflow", "mlflow", _mlflow, wires.mlflow),
        Contestant("litserve", "litserve", _litserve, wires.by_hand),
    )
}
BY_HAND, PRODUCTS = ("flask", "fastapi"), ("mlserver", "bentoml", "mlflow", "litserve")


def own_bin() -> Path:
    """Return the folder of the `tableside` command."""
    return Path(sys.executable).parent
