"""The reference pages name everything there is, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import click
import msgspec
import pytest
from flask import Flask
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from tableside.cli import main
from tableside.contracts import schema
from tableside.deployment import stack_metrics
from tableside.factory import create_app
from tableside.repository.model_toml import ModelConfig
from tableside.settings import Environment, Settings
from tableside.telemetry.metrics import Metrics
from tableside.web.auth import Access, access_of
from tableside.web.error_replies import STATUS
from tableside_client import Client
from tests.docs_commands import matches, read_blocks, read_steps
from tests.estimator_zoo import NOT_SERVED

PROJECT = Path(__file__).resolve().parents[2]
DOCS = PROJECT / "docs"
REFERENCE = DOCS / "reference"
PAGES = [*PROJECT.glob("*.md"), *DOCS.rglob("*.md"), PROJECT / "client/README.md", PROJECT / "benchmarks/README.md"]
DECISIONS = sorted((DOCS / "decisions").glob("*.md"))


def table_rows(text: str) -> list[list[str]]:
    """The cells of every row of a page's tables, without the rows of headings and of dashes."""
    rows = [re.split(r"\s*\|\s*", line.strip()[1:-1].strip(" ")) for line in text.splitlines() if line[:1] == "|"]
    return [row for row in rows if not set("".join(row)) <= set("-|: ")]


def code_in(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def section(text: str, heading: str) -> str:
    """A page's text from this heading to the next one of the same level or a higher one. Fails without it."""
    level = heading.count("#")
    found = re.search(rf"^{re.escape(heading)}$\n(.*?)(?=^#{{1,{level}}} |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, heading
    return found[1]


def anchor(heading: str) -> str:
    """The anchor that a heading gets on a page."""
    return re.sub(r"[^\w -]", "", heading.replace("`", "")).strip().lower().replace(" ", "-")


def test_every_setting_has_its_line() -> None:
    """settings.md lists each setting once, with its default, and no other."""
    rows = re.findall(r"^\| `(\w+\.\w+)` \| (.+?) \|", (REFERENCE / "settings.md").read_text(), re.MULTILINE)
    expected = {
        f"{group.name}.{field.name}": getattr(getattr(Settings(), group.name), field.name)
        for group in msgspec.structs.fields(Settings)
        if isinstance(getattr(Settings(), group.name), msgspec.Struct)
        for field in msgspec.structs.fields(group.type)
    }
    assert [name for name, _ in rows] == list(dict.fromkeys(name for name, _ in rows))
    assert dict(rows).keys() == expected.keys()
    for name, default in expected.items():
        shown = {"server.workers": "cores"}.get(
            name, f"`{default:g}`" if isinstance(default, float) else f"`{default}`"
        )
        assert dict(rows)[name] == ("none" if default in ("", ()) else shown), name


def test_every_key_of_an_environment_has_its_line() -> None:
    """settings.md lists the keys of `[environments.NAME]` in order, and no other."""
    rows = table_rows(section((REFERENCE / "settings.md").read_text(), "## Environments"))
    keys = [code_in(row[0])[0] for row in rows if row[0].startswith("`")]
    assert keys == [field.name for field in msgspec.structs.fields(Environment)]


def test_every_metric_has_its_line() -> None:
    """metrics.md lists each metric once, by the name a scrape shows, with its type and labels, and no other."""
    rows = [row for row in table_rows((REFERENCE / "metrics.md").read_text()) if row[0].startswith("`tableside_")]
    listed = {code_in(row[0])[0]: (row[1], tuple(filter(None, re.split(r",\s*", row[2])))) for row in rows}
    registry = CollectorRegistry()
    metrics = vars(Metrics(registry)).values()
    assert len(rows) == len(listed)
    kinds = {family.name + "_total" * (family.type == "counter"): family.type for family in registry.collect()}
    for name, (_, labels) in (*stack_metrics.COUNTERS.items(), *stack_metrics.GAUGES.items()):
        is_counter = name in stack_metrics.COUNTERS
        kinds[name + "_total" * is_counter] = "counter" if is_counter else "gauge"
        assert tuple(listed.get(name + "_total" * is_counter, ("", ()))[1]) == labels, name
    assert {name: kind for name, (kind, _) in listed.items()} == kinds
    for metric in (each for each in metrics if isinstance(each, (Counter, Gauge, Histogram))):
        family = metric.describe()[0]
        _, labels = listed[family.name + "_total" * (family.type == "counter")]
        if labels:
            metric.labels(**dict.fromkeys(labels, "x"))  # raises ValueError for other labels than the metric's own
        else:
            (metric.observe if isinstance(metric, Histogram) else metric.inc)(0)  # raises ValueError with labels


def test_every_key_of_model_toml_has_its_line() -> None:
    """model-toml.md lists each key once, with its default, and no other."""
    rows = [row for row in table_rows((REFERENCE / "model-toml.md").read_text()) if row[0].startswith("`")]
    listed = {code_in(row[0])[0]: row[1] for row in rows}
    expected: dict[str, str] = {}
    for field in msgspec.structs.fields(ModelConfig):
        table = next((each for each in (field.type, *get_args(field.type)) if is_table(each)), None)
        if table is None:
            expected[field.name] = toml_of(getattr(ModelConfig(), field.name))
            continue
        for each in msgspec.structs.fields(table):
            made = each.default_factory() if callable(each.default_factory) else each.default
            text = f"required in `[{field.name}]`" if each.required else toml_of(made)
            expected[f"{field.name}.{each.name}"] = text
    assert len(rows) == len(listed)
    assert listed == expected


def is_table(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct) and kind.__name__.endswith(("Config", "History"))


def toml_of(value: object) -> str:
    return "none" if value in ({}, None) else f"`{text_of(value)}`"


def text_of(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


CONTRACT_STRUCTS = ("Contract", "Input", "Column", "Output", "Golden", "Artifact", "EquivalenceCheck", "Route")


@pytest.mark.parametrize("name", CONTRACT_STRUCTS)
def test_every_field_of_the_contract_has_its_line(name: str) -> None:
    """contract.md has a section for each struct with each of its fields in order, and no other field."""
    text = section((REFERENCE / "contract.md").read_text(), f"## {name}")
    listed = [code_in(row[0])[0] for row in table_rows(text) if row[0].startswith("`")]
    assert listed == [field.name for field in msgspec.structs.fields(getattr(schema, name))]


def test_every_struct_of_the_contract_has_a_section() -> None:
    """A struct that is added to the contract's schema is documented."""
    structs = [each for each in vars(schema).values() if isinstance(each, type) and issubclass(each, msgspec.Struct)]
    assert {each.__name__ for each in structs if each.__module__ == schema.__name__} == set(CONTRACT_STRUCTS)


def all_commands(group: click.Group = main, before: str = "") -> dict[str, click.Command]:
    """Each command by its words: those of a group have two."""
    found: dict[str, click.Command] = {}
    for name, command in group.commands.items():
        found |= all_commands(command, f"{name} ") if isinstance(command, click.Group) else {before + name: command}
    return found


COMMANDS = all_commands()


def test_every_command_has_its_section() -> None:
    """cli.md has a section for each command of `tableside`, and no other."""
    listed = re.findall(r"^## `tableside ([\w -]+)`$", (REFERENCE / "cli.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(COMMANDS)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_option_has_its_line(name: str) -> None:
    """A command's section lists each of its options with every spelling, and no other; arguments are named."""
    text = section((REFERENCE / "cli.md").read_text(), f"## `tableside {name}`")
    listed = [word.split()[0] for row in table_rows(text) for word in code_in(row[0])]
    options = [each for each in COMMANDS[name].params if isinstance(each, click.Option)]
    assert sorted(listed) == sorted(spelling for option in options for spelling in option.opts)
    for argument in set(COMMANDS[name].params) - set(options):
        assert str(argument.name).upper() in text, argument.name


def test_documented_defaults_of_options_are_true() -> None:
    """Where an option has a default of its own, its line shows it."""
    page = (REFERENCE / "cli.md").read_text()
    for name, command in COMMANDS.items():
        rows = {code_in(row[0])[-1].split()[0]: row for row in table_rows(section(page, f"## `tableside {name}`"))
                if row[0].startswith("`")}  # fmt: skip
        for option in command.params:
            if isinstance(option, click.Option) and option.show_default:
                assert rows[option.opts[-1]][1] == f"`{option.default}`", option.name


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory) -> Flask:
    folder = tmp_path_factory.mktemp("docs")
    return create_app(
        msgspec.convert({"server": {"run_dir": str(folder)}, "repository": {"path": str(folder)}}, Settings)
    )


def test_every_route_has_its_line(application: Flask) -> None:
    """http.md lists each route of the application with its methods, and no other."""
    rows = table_rows(section((REFERENCE / "http.md").read_text(), "## Routes"))
    listed = {path: set(row[1].split(", ")) for row in rows for path in code_in(row[0])}
    values = {"name": "NAME", "version": "V", "operation_id": "ID"}
    expected: dict[str, set[str]] = {}
    for rule in application.url_map.iter_rules():
        path = re.sub(r"<(\w+:)?(\w+)>", lambda part: "FILE" if part[1] == "path:" else values[part[2]], rule.rule)
        expected.setdefault(path, set()).update((rule.methods or set()) - {"HEAD", "OPTIONS"})
    assert listed == expected


def test_the_plane_and_key_of_every_route_are_true(application: Flask) -> None:
    """http.md says of each route on which planes it is, and the scope of the key that it needs."""
    words = {
        Access.OPEN: ["both", "none"], Access.PREDICT: ["both", "predict"], Access.METRICS: ["control", "metrics"],
        Access.ADMIN: ["control", "admin"], Access.PAGE: ["control", "none"],
    }  # fmt: skip
    rows = table_rows(section((REFERENCE / "http.md").read_text(), "## Routes"))
    listed = {path: row[2:4] for row in rows for path in code_in(row[0])}
    for rule in application.url_map.iter_rules():
        path = re.sub(r"<path:\w+>", "FILE", rule.rule).replace("<operation_id>", "ID")
        path = re.sub(r"<(\w+:)?name>", "NAME", re.sub(r"<(\w+:)?version>", "V", path))
        assert listed[path] == words[access_of(rule.endpoint)], path


def test_every_status_has_its_line() -> None:
    """http.md says of each status that an error can have when it comes."""
    rows = table_rows(section((REFERENCE / "http.md").read_text(), "## Errors"))
    assert {str(status) for status in STATUS.values()} <= {row[0] for row in rows}


def test_every_method_of_the_client_has_its_line() -> None:
    """python-client.md lists each public method of the client, and no other."""
    text = section((REFERENCE / "python-client.md").read_text(), "## Client")
    listed = {word.partition("(")[0] for row in table_rows(text) for word in code_in(row[0]) if "(" in word}
    assert listed == {name for name, each in vars(Client).items() if callable(each) and not name.startswith("_")}


def headings(page: Path) -> set[str]:
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return {anchor(heading) for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    """A relative link in a page points at a file of the project, and at a heading of it if it names one."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        path, _, heading = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), target
        if heading:
            assert heading in headings(file), target


def test_the_list_of_pages_is_complete() -> None:
    """docs/README.md links to every page of docs/; the list of runbooks has those of the alerts."""
    indexes = (DOCS / "README.md", DOCS / "runbooks/README.md")
    linked = {
        (index.parent / target.partition("#")[0]).resolve()
        for index in indexes
        for target in re.findall(r"\]\(([^)]+)\)", index.read_text())
    }
    assert {page for page in DOCS.rglob("*.md") if page != indexes[0]} <= linked


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.stem)
def test_every_decision_has_a_status_and_a_date(page: Path) -> None:
    """The first paragraph of a decision says whether it holds, and when it was taken."""
    title, blank, status = page.read_text().splitlines()[:3]
    assert title.startswith(f"# {page.stem[:4]}: ")
    assert blank == ""
    assert re.match(r"Status: (accepted|superseded)\b.*\b20\d\d-\d\d-\d\d\b", status), status


def test_the_glossary_is_in_order() -> None:
    """Terms are listed once, in the order of the alphabet."""
    terms = [row[0] for row in table_rows((DOCS / "glossary.md").read_text())][1:]
    assert terms == sorted(set(terms), key=str.lower)


def test_files_that_pages_name_exist() -> None:
    """A path of the project in code marks, such as `app/settings.py`, names a file or a folder that is there."""
    lost = [
        f"{page.relative_to(PROJECT)}: {path}"
        for page in DOCS.rglob("*.md")
        for path in re.findall(r"`((?:app|blueprints|tests|requirements|deploy|examples)/[\w./-]*)`", page.read_text())
        if not (PROJECT / path).exists()
    ]
    assert lost == []


def test_pages_do_not_import_the_folders() -> None:
    """Examples import the installed names: `tableside` and `tableside_client`, never `app` or `blueprints`."""
    for page in PAGES:
        assert not re.search(r"^\s*(from|import) (app|blueprints)\b", page.read_text(), re.MULTILINE), page


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
    """estimators.md lists those the end-to-end test expects to be refused, and no other."""
    table = section((DOCS / "explanation/estimators.md").read_text(), "## Not served")
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    listed = [name for line in rows for name in re.findall(r"`(\w+)`", line.split("|")[1])]
    assert sorted(listed) == sorted(NOT_SERVED)


PAGE = """Words.

```console
$ echo one \\
>   two
one two
$ true
```

<!-- not run: it takes an hour -->
```sh
make bench
```

```text
not looked at
```
"""


def test_commands_are_read_from_a_page() -> None:
    """Blocks that can be run are found in order, with the reason of those that are left out and each step's output."""
    console, skipped = read_blocks(PAGE)
    assert (console.language, console.line, console.skipped) == ("console", 3, None)
    assert (skipped.language, skipped.skipped) == ("sh", "it takes an hour")
    first, second = read_steps(console)
    assert (first.command, first.expected) == ("echo one \\\n  two", "one two")
    assert (second.command, second.expected) == ("true", "")


@pytest.mark.parametrize(
    ("expected", "printed", "same"),
    [
        ("a ... c", "a b c\n", True), ("...", "", True), ("a", "a", True), ("a\nb", "a  \nb\n", True),
        ("a.c", "abc", False), ("a ...", "b a c", False), ("", "something", False),
    ],
)  # fmt: skip
def test_output_is_compared_with_the_page(expected: str, printed: str, same: bool) -> None:
    """`...` stands for any text; everything else has to be printed as the page shows it."""
    assert matches(expected, printed) is same
