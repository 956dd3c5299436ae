"""Clients that generators make from `/openapi.json` of the running stack compile, and predict as in memory, to the bit.

The document has a model of numbers, one of mixed columns and one of text, beside example models. `make test-clients`
runs this.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients import environments
from tests.clients.tables import asked, publish_all
from tests.conftest import cells
from tests.e2e.conftest import PROJECT, Stack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
GENERATED = Path(__file__).parent / "generated"
KIND = {"numbers": "missing number", "kinds": "missing text", "notes": "text with NUL and umlauts"}
"""The table of each model that is asked."""
DATATYPES = {"float64": "FP64", "float32": "FP32", "int64": "INT64", "bool": "BOOL"}


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    publish_all(root)
    for name in ("iris", "wine", "breast-cancer"):  # classifiers, several outputs, and a hyphen
        shutil.copytree(PROJECT / "models" / name, root / name)
    return root


@pytest.fixture(scope="session")
def served(make_stack: Callable[..., Stack]) -> Iterator[Stack]:
    stack = make_stack()
    stack.wait_loaded()
    yield stack


@pytest.fixture
def document(served: Stack, tmp_path: Path) -> Path:
    """The document in a file of an empty folder."""
    path = tmp_path / "openapi.json"
    path.write_text(json.dumps(served.call("/openapi.json")[1]))
    return path


def rows_of(model: str) -> list[dict[str, Any]]:
    table = asked()[model].tables[KIND[model]]
    plain = table.astype({name: str for name in table.select_dtypes("datetime")})
    return [dict(zip(table.columns, row, strict=True)) for row in cells(plain)]


def tensors_of(model: str) -> list[dict[str, Any]]:
    """The same as the inputs of V2."""
    rows, sample = rows_of(model), asked()[model].sample
    kinds = {name: DATATYPES.get(str(dtype), "BYTES") for name, dtype in sample.dtypes.items()}
    return [
        {"name": name, "shape": [len(rows)], "datatype": kind, "data": [row[name] for row in rows]}
        for name, kind in kinds.items()
    ]


def run(command: list[object], cwd: Path, given: str = "") -> str:
    done = subprocess.run(list(map(str, command)), cwd=cwd, input=given, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{command[:3]}: {done.stdout[-3000:]} {done.stderr[-3000:]}"
    return done.stdout


def check(command: list[object], cwd: Path, served: Stack) -> None:
    """Run a program that predicts with a generated client, and compare its answers to the bit."""
    given = {
        "url": f"http://127.0.0.1:{served.data}",
        "rows": {model: rows_of(model) for model in KIND},
        "infer": {model: {"inputs": tensors_of(model)} for model in KIND},
    }
    answers = json.loads(run(command, cwd, json.dumps(given)).splitlines()[-1])
    expected = {model: asked()[model].answers(kind) for model, kind in KIND.items()}
    assert {model: [float(each).hex() for each in found] for model, found in answers.items()} == {
        model: [each.hex() for each in found] for model, found in expected.items()
    }


def test_openapi_python_client(document: Path, served: Stack) -> None:
    """Every operation is generated. The generator knows no CSV and no binary formats, and says so; nothing else."""
    python, folder = environments.python("generators"), document.parent
    text = run(
        [python.parent / "openapi-python-client", "generate", "--path", document, "--meta", "none", "--output-path",
         "generated_client"], folder,
    )  # fmt: skip
    assert set(re.findall(r"^(Unable|ERROR|Attempted|Could not|Endpoint)", text, re.MULTILINE)) == set()
    content = json.loads(document.read_text())
    operations = {each["operationId"] for path in content["paths"].values() for each in path.values()}
    assert operations <= {path.stem for path in (folder / "generated_client" / "api").rglob("*.py")}
    run([python, "-m", "compileall", "-q", "generated_client"], folder)
    shutil.copy(GENERATED / "by_openapi_python_client.py", folder)
    check([python, "by_openapi_python_client.py"], folder, served)


def test_datamodel_code_generator(document: Path, served: Stack) -> None:
    """Its pydantic models take the rows and the answers. A name with a dot becomes a module for each model."""
    python, folder = environments.python("generators"), document.parent
    run(
        [python.parent / "datamodel-codegen", "--input", document, "--input-file-type", "openapi", "--output",
         "generated_models", "--output-model-type", "pydantic_v2.BaseModel", "--target-python-version", "3.11",
         "--disable-warnings"], folder,
    )  # fmt: skip
    run([python, "-m", "compileall", "-q", "generated_models"], folder)
    shutil.copy(GENERATED / "by_datamodel_codegen.py", folder)
    check([python, "by_datamodel_codegen.py"], folder, served)


def tsc(folder: Path, node: Path, name: str) -> None:
    """Compile a program and the types beside it, strictly."""
    (folder / "node_modules").symlink_to(node / "node_modules")
    (folder / "package.json").write_text('{"type": "module"}')
    options = [
        "--strict",
        "--target",
        "es2022",
        "--module",
        "es2022",
        "--moduleResolution",
        "bundler",
        "--skipLibCheck",
    ]
    run([node / "node_modules" / ".bin" / "tsc", *options, "--types", "node", "--outDir", "out", name], folder)


def test_openapi_typescript(document: Path, served: Stack) -> None:
    """Its types are those of the requests of openapi-fetch."""
    node, folder = environments.node(), document.parent
    run([node / "node_modules" / ".bin" / "openapi-typescript", document, "-o", "api.d.ts"], folder)
    shutil.copy(GENERATED / "by_openapi_fetch.ts", folder)
    tsc(folder, node, "by_openapi_fetch.ts")
    check(["node", "out/by_openapi_fetch.js"], folder, served)


def test_orval(document: Path, served: Stack) -> None:
    """Its functions predict with fetch."""
    node, folder = environments.node(), document.parent
    program = node / "node_modules" / ".bin" / "orval"
    run([program, "--input", "openapi.json", "--output", "api.ts", "--client", "fetch"], folder)
    shutil.copy(GENERATED / "by_orval.ts", folder)
    tsc(folder, node, "by_orval.ts")
    out = folder / "out" / "by_orval.js"
    out.write_text(out.read_text().replace('from "./api"', 'from "./api.js"'))  # Node.js wants the file's whole name
    check(["node", "out/by_orval.js"], folder, served)


ALTERNATIVES = """\
package org.openapitools.client.model;

import com.fasterxml.jackson.annotation.JsonCreator;
import com.fasterxml.jackson.annotation.JsonValue;

public class NAME {
    private final Object value;

    @JsonCreator(mode = JsonCreator.Mode.DELEGATING)
    public NAME(Object value) { this.value = value; }

    @JsonValue
    public Object getActualInstance() { return value; }

    public String toUrlQueryString(String prefix) { return ""; }
}
"""
"""The generator's library `native` writes `List<Row>.class` for alternatives that are arrays, which is not Java. This
takes the place of such a class."""
GENERATED_ANNOTATION = "package javax.annotation; public @interface Generated { String[] value(); String comments(); }"


def test_openapi_generator_for_java(document: Path, served: Stack) -> None:
    """Java's HttpClient sends typed rows. What its generator cannot write in Java holds any value instead."""
    if shutil.which("javac") is None:
        raise environments.NotInstalled("there is no javac on PATH; install a JDK (Debian: default-jdk-headless)")
    python, folder = environments.python("generators"), document.parent
    (jar,) = python.parent.parent.glob("lib/python*/site-packages/openapi_generator_cli/*.jar")
    options = "--additional-properties=openApiNullable=false,hideGenerationTimestamp=true"
    generate = ["java", "-jar", jar, "generate", "-g", "java", "--library", "native", "-i", document, "-o", "java"]
    run([*generate, options], folder)
    sources = folder / "java" / "src" / "main" / "java"
    for path in sources.rglob("model/*.java"):
        if re.search(r"\b(?:List|Set|Map)<[\w<>, .]+>\.class", path.read_text()):
            path.write_text(ALTERNATIVES.replace("NAME", path.stem))
    annotation = sources / "javax" / "annotation" / "Generated.java"
    annotation.parent.mkdir(parents=True)
    annotation.write_text(GENERATED_ANNOTATION)
    shutil.copy(GENERATED / "ByOpenapiGenerator.java", sources)
    run(["javac", "-nowarn", "-d", "classes", "-cp", jar, *sorted(sources.rglob("*.java"))], folder)
    check(["java", "-cp", f"classes:{jar}", "ByOpenapiGenerator"], folder, served)
