"""The files of deploy/ for Kubernetes and Docker are valid: the schemas of these programs and a linter accept them."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

pytestmark = pytest.mark.no_greenlets

PROJECT = Path(__file__).resolve().parents[2]
DEPLOY = PROJECT / "deploy"
BIN = Path(sys.executable).parent

NAMED = re.search(r"for Kubernetes (\d+\.\d+) to (\d+\.\d+)", (PROJECT / "docs/guide/containers.md").read_text())
assert NAMED is not None
OLDEST, NEWEST = NAMED.groups()
"""The releases of Kubernetes that the documentation names."""


def objects() -> list[Any]:
    files = sorted((DEPLOY / "kubernetes").iterdir())
    return [each for file in files for each in yaml.safe_load_all(file.read_text())]


def label(each: Any) -> str:
    return f"{each['kind']}-{each['metadata']['name']}"


def one(kind: str) -> Any:
    return copy.deepcopy(next(each for each in objects() if each["kind"] == kind))


def accepts(each: Any, release: str) -> None:
    """Raise ValidationError if the API of this release refuses the object. Fields that it does not know are refused."""
    assert kubernetes_validate.validate(each, release, strict=True) == release


@pytest.mark.parametrize("release", [OLDEST, NEWEST])
@pytest.mark.parametrize("each", objects(), ids=label)
def test_kubernetes_accepts_every_object(each: Any, release: str) -> None:
    """Each object of deploy/kubernetes is valid in the oldest and in the newest release that the page names."""
    accepts(each, release)


def test_the_newest_release_is_the_newest_that_has_schemas() -> None:
    """A new release of Kubernetes comes with the next lock, and is then named in the documentation."""
    assert kubernetes_validate.latest_version().startswith(f"{NEWEST}.")


def container(deployment: Any) -> Any:
    return deployment["spec"]["template"]["spec"]["containers"][0]


MISTAKES: dict[str, tuple[str, Callable[[Any], object], str]] = {
    "misspelt field": ("Deployment", lambda d: container(d).update(readinesProbe={}), "readinesProbe"),
    "field in the wrong place": ("Deployment", lambda d: d["spec"].update(preStop={}), "preStop"),
    "number as text": ("Deployment", lambda d: d["spec"].update(replicas="2"), "'2' is not of type 'integer'"),
    "text as number": ("ConfigMap", lambda c: c["data"].update(port=8080), "8080"),
    "no selector": ("Deployment", lambda d: d["spec"].pop("selector"), "'selector' is a required property"),
    "probe without a port": ("Deployment", lambda d: container(d)["livenessProbe"]["httpGet"].pop("port"), "'port'"),
    "one label for a list": ("NetworkPolicy", lambda n: n["spec"].update(policyTypes="Ingress"), "'Ingress'"),
    "misspelt field of a service": ("Service", lambda s: s["spec"]["ports"][0].update(targetport=1), "targetport"),
    "misspelt field of a claim": ("PersistentVolumeClaim", lambda p: p["spec"].update(accessMode=[]), "accessMode"),
    "misspelt field of a budget": (
        "PodDisruptionBudget",
        lambda p: p["spec"].update(maxUnavailible=1),
        "maxUnavailible",
    ),
}


@pytest.mark.parametrize("release", [OLDEST, NEWEST])
@pytest.mark.parametrize("name", MISTAKES)
def test_kubernetes_refuses_a_mistake(name: str, release: str) -> None:
    """The validator sees what a hand gets wrong, so that it says something when it accepts the files."""
    kind, spoil, said = MISTAKES[name]
    spoilt = one(kind)
    spoil(spoilt)
    with pytest.raises(kubernetes_validate.ValidationError) as error:
        accepts(spoilt, release)
    assert said in str(error.value)


def checked(file: Path) -> subprocess.CompletedProcess[str]:
    words = [str(BIN / "check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(file)]
    return subprocess.run(words, capture_output=True, text=True, timeout=60)


def test_the_compose_file_is_that_of_the_specification(tmp_path: Path) -> None:
    """compose.yaml is valid by the schema of the compose specification, and mistakes in it are not."""
    file = DEPLOY / "docker" / "compose.yaml"
    done = checked(file)
    assert done.returncode == 0, done.stdout
    for right, wrong in (("stop_grace_period:", "stop_grace_periods:"), ("read_only: true", "read_only: [yes]")):
        (tmp_path / "compose.yaml").write_text(file.read_text().replace(right, wrong))
        done = checked(tmp_path / "compose.yaml")
        assert done.returncode == 1, wrong
        assert wrong.partition(":")[0] in done.stdout


def linted(file: Path) -> subprocess.CompletedProcess[str]:
    words = [str(BIN / "hadolint"), "--no-color", "--failure-threshold", "style", str(file)]
    return subprocess.run(words, capture_output=True, text=True, timeout=60)


def test_the_linter_has_nothing_to_say_of_the_dockerfile(tmp_path: Path) -> None:
    """hadolint, which runs shellcheck on RUN lines, finds nothing in the Dockerfile, and finds seeded mistakes."""
    file = DEPLOY / "docker" / "Dockerfile"
    done = linted(file)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout
    spoilt = file.read_text().replace("STOPSIGNAL", "STOPSIGNALS").replace("RUN sh deploy", "RUN cd $HOME; sh deploy")
    (tmp_path / "Dockerfile").write_text(spoilt)
    assert linted(tmp_path / "Dockerfile").returncode == 1
    (tmp_path / "Dockerfile").write_text(spoilt.replace("STOPSIGNALS", "STOPSIGNAL"))
    assert "SC2086" in linted(tmp_path / "Dockerfile").stdout
