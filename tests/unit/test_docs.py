"""The reference pages name everything there is, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from tableside.settings import Settings
from tableside.telemetry.metrics import Metrics
from tests.estimator_zoo import NOT_SERVED

PROJECT = Path(__file__).resolve().parents[2]
DOCS = PROJECT / "docs"


def test_every_setting_has_its_line() -> None:
    """docs/settings.md lists each setting once, with its default, and no other."""
    rows = dict(re.findall(r"^\| `(\w+\.\w+)` \| (.+?) \|", (DOCS / "settings.md").read_text(), re.MULTILINE))
    expected = {
        f"{section.name}.{field.name}": getattr(getattr(Settings(), section.name), field.name)
        for section in msgspec.structs.fields(Settings)
        for field in msgspec.structs.fields(section.type)
    }
    assert rows.keys() == expected.keys()
    for name, default in expected.items():
        shown = {"server.workers": "cores"}.get(
            name, f"`{default:g}`" if isinstance(default, float) else f"`{default}`"
        )
        assert rows[name] == ("none" if default in ("", ()) else shown), name


def test_every_metric_has_its_line() -> None:
    """docs/metrics.md lists each metric by the name a scrape shows, and no other."""
    listed = set(re.findall(r"^\| `(tableside_\w+)` \|", (DOCS / "metrics.md").read_text(), re.MULTILINE))
    registry = CollectorRegistry()
    Metrics(registry)
    names = {family.name + ("_total" if family.type == "counter" else "") for family in registry.collect()}
    assert listed == names


def pages() -> list[Path]:
    return [*PROJECT.glob("*.md"), *DOCS.rglob("*.md")]


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    """A relative link in a page points at a file of the project."""
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_dependencies_page_has_a_line_for_each() -> None:
    """docs/dependencies.md says of each direct dependency what it is for."""
    wanted = [
        line.split("[")[0].split(">")[0].strip() for line in (PROJECT / "requirements/base.in").read_text().splitlines()
    ]
    text = (DOCS / "dependencies.md").read_text()
    for name in wanted:
        if name and not name.startswith("#"):
            assert re.search(rf"^\|[^|]*\b{re.escape(name)}\b[^|]*\|", text, re.MULTILINE), name


def test_the_estimators_not_served_are_documented() -> None:
    """docs/06-estimators.md lists those the end-to-end test expects to be refused, and no other."""
    page = (DOCS / "06-estimators.md").read_text()
    table = page[page.index("## Not served") : page.index("## Trusted types")]
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    listed = [name for line in rows for name in re.findall(r"`(\w+)`", line.split("|")[1])]
    assert sorted(listed) == sorted(NOT_SERVED)
