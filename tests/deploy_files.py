"""Reads the files of deploy/ for the tests."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from tableside.settings import Settings, split_address
from tests.host.dockerfile import Stage, read

PROJECT = Path(__file__).resolve().parents[1]
DEPLOY = PROJECT / "deploy"
STATE = "/var/lib/tableside"
CODE = "/opt/tableside/current"
UID = 10001


def text(path: str) -> str:
    return (DEPLOY / path).read_text()


def unit() -> dict[str, list[str]]:
    """The directives of the systemd unit, each with its values in order."""
    found: dict[str, list[str]] = {}
    for key, value in re.findall(r"^(\w+)=(.*)$", text("systemd/tableside.service"), re.MULTILINE):
        found.setdefault(key, []).append(value)
    return found


def seconds(written: str) -> int:
    assert re.fullmatch(r"\d+s?", written), written
    return int(written.rstrip("s"))


def kubernetes() -> dict[tuple[str, str], Any]:
    """Every object of deploy/kubernetes by its kind and name."""
    found = {}
    for file in sorted((DEPLOY / "kubernetes").glob("*.yaml")):
        for each in yaml.safe_load_all(file.read_text()):
            key = (each["kind"], each["metadata"]["name"])
            assert key not in found, file
            found[key] = each
    return found


def pod() -> Any:
    return kubernetes()["Deployment", "tableside"]["spec"]["template"]["spec"]


def compose() -> Any:
    return yaml.safe_load(text("docker/compose.yaml"))


def last_stage() -> Stage:
    return read(text("docker/Dockerfile"))[-1]


def ports(settings: Settings) -> tuple[int, int]:
    return split_address(settings.server.listen)[1], split_address(settings.server.admin_listen)[1]
