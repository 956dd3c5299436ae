"""The clients, and how each is run: in an environment of its own, or as a program of this machine."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.clients import environments, written_bodies
from tests.clients.environments import NotInstalled
from tests.clients.recorder import CASE
from tests.clients.written_bodies import Table, predictions

DRIVERS = Path(__file__).parent / "drivers"
RUN_S = 300
Tables = Mapping[str, Mapping[str, Table]]
"""By model and kind of value."""


@dataclass(frozen=True)
class Said:
    """What a client made of an answer: numbers, or a problem."""

    spelling: str
    model: str
    kind: str
    answer: list[float] | None
    problem: str = ""


@dataclass(frozen=True)
class Client:
    """A client. run: given the recorder's URL, the stack's URL and the tables; returns its version and what it said."""

    name: str
    run: Callable[[str, str, Tables], tuple[str, list[Said]]]


def _in_python(lock: str, distribution: str, driver: str) -> Callable[[str, str, Tables], tuple[str, list[Said]]]:
    def run(url: str, _: str, tables: Tables) -> tuple[str, list[Said]]:
        python = environments.python(lock)
        ask = f"import importlib.metadata as m; print(m.version({distribution!r}))"
        version = _output([str(python), "-c", ask], b"").strip()
        lines = _output([str(python), str(DRIVERS / driver)], json.dumps({"url": url, "tables": tables}).encode())
        return version, _said(lines)

    return run


def _in_node(url: str, _: str, tables: Tables) -> tuple[str, list[Said]]:
    folder = environments.node()
    driver = folder / "driver.mjs"
    shutil.copy(DRIVERS / "node.mjs", driver)  # modules are looked up from where the program is
    axios = json.loads((folder / "node_modules" / "axios" / "package.json").read_text())["version"]
    version = f"{_output(['node', '--version'], b'').strip()}, axios {axios}"
    return version, _said(_output(["node", str(driver)], json.dumps({"url": url, "tables": tables}).encode()))


def _in_java(url: str, direct: str, tables: Tables) -> tuple[str, list[Said]]:
    _need("java", "javac")
    lines, models = [], {}
    for name, model, kind, path, content_type, body in _written(tables):
        of = "" if model == "kinds" else f", {model}"
        for protocol, target in (("1.1", url), ("2", direct)):
            spelling = f"{name}{of}{', HTTP/2 offered' if protocol == '2' else ''}"
            models[spelling] = model
            text = base64.b64encode(body).decode()
            lines.append("\t".join((spelling, kind, protocol, target + path, content_type, text)))
    given = "\n".join(lines).encode()
    answered = _output(["java", str(DRIVERS / "Ask.java"), url + CASE], given).splitlines()
    version = re.search(r'"([^"]+)"', subprocess.run(["java", "-version"], capture_output=True, text=True).stderr)
    said = []
    for line in answered:
        spelling, kind, status, text = line.split("\t")
        said.append(_read(spelling, models[spelling], kind, int(status), base64.b64decode(text)))
    return version[1] if version else "?", said


def _in_curl(url: str, _: str, tables: Tables) -> tuple[str, list[Said]]:
    _need("curl")
    said = []
    for name, model, kind, path, content_type, body in _written(tables):
        for option, words in _CURL.items():
            if (
                option
                and (name != "V1 instances" or model != "kinds")
                and option not in _CURL_TYPES.get(content_type, ())
            ):
                continue
            spelling = f"{name}{'' if model == 'kinds' else f', {model}'}{option}"
            _announce(url, spelling, kind)
            with tempfile.NamedTemporaryFile() as file:
                file.write(body)
                file.flush()
                typed = [each.format(file=file.name, type=content_type) for each in words]
                done = _output(["curl", "-sS", "-w", "\n%{{http_code}}".format(), *typed, url + path], b"")
            text, _, status = done.rpartition("\n")
            said.append(_read(spelling, model, kind, int(status), text.encode()))
    return _output(["curl", "--version"], b"").split()[1], said


_CURL = {
    "": ["-H", "Content-Type: {type}", "--data-binary", "@{file}"],
    ", chunked": ["-H", "Content-Type: {type}", "-H", "Transfer-Encoding: chunked", "--data-binary", "@{file}"],
    ", --json": ["--json", "@{file}"],
    ", --compressed": ["--compressed", "-H", "Content-Type: {type}", "--data-binary", "@{file}"],
    ", -d alone": ["-d", "@{file}"],
}


_CURL_TYPES = {"text/csv": (", chunked",)}


def _in_ab(_: str, direct: str, tables: Tables) -> tuple[str, list[Said]]:
    _need("ab")
    said = []
    for name, model, kind, path, content_type, body in _written(tables):
        for option, words in (("", []), (", -k", ["-k"])):
            spelling = f"{name}{'' if model == 'kinds' else f', {model}'}{option}"
            with tempfile.NamedTemporaryFile() as file:
                file.write(body)
                file.flush()
                command = ["ab", "-v", "4", "-n", "1", "-c", "1", *words, "-p", file.name, "-T", content_type]
                text = _output([*command, direct + path], b"")
            status = re.search(r"^HTTP/1\.[01] (\d+)", text, re.MULTILINE)
            content = re.search(r"^\{.*\}", text, re.MULTILINE)
            found = (content[0] if content else "").encode()
            said.append(_read(spelling, model, kind, int(status[1]) if status else 0, found))
    version = re.search(r"Version (\S+)", _output(["ab", "-V"], b""))
    return version[1] if version else "?", said


def _written(tables: Tables) -> Iterator[tuple[str, str, str, str, str, bytes]]:
    for model, by_kind in tables.items():
        for kind, table in by_kind.items():
            for name, path, content_type, body in written_bodies.bodies(model, table):
                if model == "kinds" or name in ("V1 instances", "CSV"):
                    yield name, model, kind, path, content_type, body


def _read(spelling: str, model: str, kind: str, status: int, answer: bytes) -> Said:
    if status == 200:
        return Said(spelling, model, kind, predictions(answer))
    return Said(
        spelling, model, kind, None, f"{status}: {json.loads(answer).get('error', '?') if answer else 'no body'}"
    )


def _announce(url: str, spelling: str, kind: str) -> None:
    query = urllib.parse.urlencode({"spelling": spelling, "kind": kind})
    urllib.request.urlopen(f"{url}{CASE}?{query}", timeout=60).close()


def _need(*programs: str) -> None:
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        raise NotInstalled(f"there is no {' and no '.join(missing)} on PATH")


def _output(command: list[str], given: bytes) -> str:
    done = subprocess.run(command, input=given, capture_output=True, timeout=RUN_S)
    assert done.returncode == 0, f"{command[:2]}: {done.stderr.decode()[-2000:]}"
    return done.stdout.decode()


def _said(lines: str) -> list[Said]:
    found: list[dict[str, Any]] = [json.loads(line) for line in lines.splitlines() if line.startswith("{")]
    return [
        Said(each["spelling"], each["model"], each["kind"], each.get("answer"), each.get("problem", ""))
        for each in found
    ]


CLIENTS = [
    Client("tritonclient", _in_python("tritonclient", "tritonclient", "triton.py")),
    Client("MLServer codecs", _in_python("mlserver", "mlserver", "mlserver_codecs.py")),
    Client("MLflow", _in_python("mlflow", "mlflow-skinny", "mlflow_client.py")),
    Client("KServe", _in_python("kserve", "kserve", "kserve_client.py")),
    Client("SageMaker SDK", _in_python("sagemaker", "sagemaker", "sagemaker_sdk.py")),
    Client("Node.js", _in_node),
    Client("Java HttpClient", _in_java),
    Client("curl", _in_curl),
    Client("ab", _in_ab),
]
