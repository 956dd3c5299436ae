"""The wheel is installed into an empty environment, and serves from an empty folder."""

from __future__ import annotations

import csv
import email
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import urllib.request
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.conftest import PROJECT, Stack, free_port, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
SOURCES = (
    "app", "blueprints", "client", "deploy", "docs", "requirements", "src", "training", "LICENSE", "README.md",
    "gunicorn.conf.py", "pyproject.toml", "supervisord.conf", "wsgi.py",
)  # fmt: skip


def run(*command: str | Path, cwd: Path, environ: dict[str, str] | None = None) -> str:
    """Run a command and return what it prints on both streams. It must succeed."""
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source distribution, and the wheel that was built from it."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in SOURCES:
        if (PROJECT / name).is_dir():
            shutil.copytree(PROJECT / name, source / name, symlinks=True, ignore=ignored)
        else:
            shutil.copy(PROJECT / name, source / name)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ".", cwd=source)
    return out


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


def test_the_wheel_has_every_file_of_the_code_and_takes_no_name_of_others(wheel: Path, built: Path) -> None:
    """At the top are Tableside's three packages; templates, static files and the stack's files are among its data."""
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
        scripts = file.read(next(name for name in names if name.endswith("entry_points.txt"))).decode()
        text = file.read(next(name for name in names if name.endswith("METADATA"))).decode()
        for name in ("supervisord.conf", "gunicorn.conf.py", "wsgi.py"):
            assert file.read(f"tableside/stack/{name}") == (PROJECT / name).read_bytes()
    runbooks = {f"tableside/stack/runbooks/{path.name}" for path in (PROJECT / "docs" / "runbooks").iterdir()}
    assert runbooks < names
    packages = {"tableside", "tableside_client", "tableside_contract"}
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == packages
    code = [path for path in (PROJECT / "app").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    pages = [path for path in (PROJECT / "blueprints").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    expected = {f"tableside/{path.relative_to(PROJECT / 'app')}" for path in code}
    assert expected | {f"tableside/{path.relative_to(PROJECT)}" for path in pages} <= names
    assert re.findall(r"^([\w-]+) =", scripts, re.MULTILINE) == ["tableside", "tableside-contract"]
    needed = {each for each in email.message_from_string(text).get_all("Requires-Dist", []) if "extra ==" not in each}
    declared = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert {re.split(r"[<>=]", each)[0] for each in needed} == {re.split(r"[<>=]", each)[0] for each in declared}
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        assert any(name.endswith("/src/tableside/stack/supervisord.conf") for name in file.getnames())


@dataclass
class Installed:
    """An environment with the wheel, an empty folder, and variables without any of the tests'."""

    environment: Path
    folder: Path
    environ: dict[str, str]

    def call(self, command: str, *words: str) -> str:
        return run(self.environment / "bin" / command, *words, cwd=self.folder, environ=self.environ)


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """The wheel with its dependencies from the package index, in the locked versions, so that it can be repeated."""
    place = tmp_path_factory.mktemp("installed")
    locked = re.findall(r"^[a-zA-Z].*?(?= \\$)", (PROJECT / "requirements" / "base.txt").read_text(), re.MULTILINE)
    (place / "constraints.txt").write_text("\n".join(re.sub(r"\[.*?\]", "", line, count=1) for line in locked))
    run(sys.executable, "-m", "venv", place / "venv", cwd=place)
    pip = (place / "venv" / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-compile")
    run(*pip, "--disable-pip-version-check", "-c", place / "constraints.txt", wheel, cwd=place)
    (place / "served").mkdir()
    data, admin = free_port(), free_port()
    ours = ("TABLESIDE", "PYTHON")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    environ |= {
        "PATH": f"{place / 'venv' / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "TABLESIDE__SERVER__LISTEN": f"127.0.0.1:{data}",
        "TABLESIDE__SERVER__ADMIN_LISTEN": f"127.0.0.1:{admin}",
        "TABLESIDE__SERVER__WORKERS": "1",
    }
    yield Installed(place / "venv", place / "served", environ)
    shutil.rmtree(place, ignore_errors=True)


def test_no_two_packages_install_the_same_file(installed: Installed) -> None:
    """Above all no command of supervisor's: whichever came last would win."""
    counts: Counter[str] = Counter()
    for record in installed.environment.glob("lib/python3*/site-packages/*.dist-info/RECORD"):
        with record.open() as lines:
            counts.update(row[0] for row in csv.reader(lines))
    assert counts["../../../bin/supervisorctl"] == 1
    assert [path for path, count in counts.items() if count > 1 and not path.endswith("tests/__init__.py")] == []


def test_an_empty_folder_serves_after_init(installed: Installed) -> None:
    """`tableside init . && tableside run` answers; supervisor's own supervisorctl restarts it; what exists is kept."""
    assert "published iris/1" in installed.call("tableside", "init", ".")
    settings = installed.folder / "tableside.toml"
    settings.write_text(f"{settings.read_text()}\n# mine\n")
    again = installed.call("tableside", "init")
    assert "kept  tableside.toml" in again
    assert "published" not in again
    assert settings.read_text().endswith("# mine\n")
    stack = Stack(
        installed.folder,
        {**installed.environ, "TABLESIDE__SERVER__RUN_DIR": str(installed.folder / "run")},
        data=int(installed.environ["TABLESIDE__SERVER__LISTEN"].rpartition(":")[2]),
    )
    command = [str(installed.environment / "bin" / "tableside"), "run"]
    with (installed.folder / "run.out").open("wb") as log:
        stack.process = subprocess.Popen(command, cwd=installed.folder, env=installed.environ, stdout=log, stderr=log)
    try:
        stack.wait_ready()
        body = {"instances": [[5.1, 3.5, 1.4, 0.2]]}
        assert stack.call("/v1/models/iris:predict", body)[1] == {"predictions": ["setosa"]}
        with urllib.request.urlopen(f"http://127.0.0.1:{stack.data}/docs", timeout=60) as page:
            assert page.status == 200
        banner = until(lambda: (installed.folder / "run.out").read_text())
        assert "tableside logs -f" in banner
        assert ".venv" not in banner
        assert "web: started" in installed.call("supervisorctl", "-c", "supervisord.conf", "restart", "web:*")
        assert "RUNNING" in installed.call("supervisorctl", "-c", "run/supervisorctl.conf", "status")
        stack.wait_ready()
        assert "the new instance serves" in installed.call(
            "tableside", "restart", "--release", str(installed.environment)
        )
        assert stack.call("/v1/models/iris:predict", body)[1] == {"predictions": ["setosa"]}
        found = json.loads(installed.call("tableside", "doctor", "--json"))
        assert found["errors"] == 0, found
    finally:
        installed.call("tableside", "stop")
        stack.process.wait(200)


def test_the_package_offers_its_names(installed: Installed) -> None:
    """`import tableside` has three names; the application is in tableside.wsgi; nothing is called app."""
    code = (
        "import importlib.util as u, tableside\n"
        "print(*(getattr(tableside, name).__name__ for name in ('publish', 'contract', 'Client')))\n"
        "import tableside.wsgi as w\n"
        "print(type(w.application).__name__, *[n for n in ('app', 'blueprints', 'wsgi') if u.find_spec(n)])\n"
    )
    printed = run(
        installed.environment / "bin" / "python", "-I", "-c", code, cwd=installed.folder, environ=installed.environ
    )
    assert printed.splitlines() == ["publish contract Client", "ApplicationForAnyServer"]
