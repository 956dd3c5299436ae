"""`tableside client`: a typed Python module for one model, on top of the package `tableside_client`."""

from __future__ import annotations

import keyword
import re
from pathlib import Path

import click

from tableside.cli.models import find
from tableside.contract.schema import Cell, Column, Contract, Output

TYPES = {"FP64": "float", "FP32": "float", "INT64": "int", "BOOL": "bool", "BYTES": "str"}

TAKEN = frozenset(
    ("Client", "Label", "Literal", "NotRequired", "Row", "Sequence", "TypedDict", "MODEL", "VERSION", "CLASSES")
)
"""Names the module has already."""


@click.command("client")
@click.argument("model")
@click.option("--repository", type=click.Path(path_type=Path), help="The model repository; default: repository.path.")
def client(model: str, repository: Path | None) -> None:
    """Write a typed client of MODEL (NAME, NAME/VERSION or NAME@ALIAS) to stdout.

    The module needs the package in client/ (pip install ./client). Write it anew when the model's columns change.
    """
    from tableside.repository import integrity, paths

    root, name, number = find(model, repository)
    wanted = paths.split_spec(model)[1]
    click.echo(module(integrity.read_contract(root, name, number), wanted), nl=False)


def module(contract: Contract, version: str | None = None) -> str:
    """Source of the module. version: the version or alias its calls ask for; None, the one served by default."""
    body = _body(contract, version)
    typing = [name for name in ("Literal", "NotRequired", "TypedDict") if re.search(rf"\b{name}\b", body)]
    ours = ["Client", *(["nan_for_null"] if "nan_for_null(" in body else [])]
    return f'''"""A typed client of the model {contract.name}, made from the contract of its version {contract.version}.

Written by `tableside client {contract.name}`: write it anew rather than edit it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import {", ".join(typing)}

from tableside_client import {", ".join(ours)}

{body}'''


def _body(contract: Contract, version: str | None) -> str:
    label = _label(contract)
    methods = "\n".join(_method(output, label) for output in contract.outputs)
    return f'''MODEL = {_shown(contract.name)}
VERSION: str | None = {_shown(version)}

Row = TypedDict(
    "Row",
    {{
{_row(contract)}    }},
)
Label = {label}
{_classes(contract)}

class {class_name(contract.name)}:
    """Asks for predictions of this model. `Client` says which errors are raised."""

    def __init__(self, client: Client) -> None:
        self.client = client

{methods}'''


def _shown(value: Cell) -> str:
    """A Python literal, in double quotes where that needs no escapes."""
    text = repr(value)
    return f'"{text[1:-1]}"' if isinstance(value, str) and '"' not in text and "\\'" not in text else text


def class_name(name: str) -> str:
    """The model's name as a class would bear it: breast-cancer is BreastCancer."""
    words = "".join(word[:1].upper() + word[1:] for word in re.split(r"[^A-Za-z0-9]+", name))
    free = words.isidentifier() and not keyword.iskeyword(words) and words not in TAKEN
    return words if free else f"Model{words}"


def _row(contract: Contract) -> str:
    return "".join(f"        {_shown(column.name)}: {_cell(column)},\n" for column in contract.input.columns)


def _cell(column: Column) -> str:
    """A nullable column may be None, or left out of a row."""
    plain = TYPES[column.datatype]
    if column.closed and column.categories:
        plain = _literal(column.categories) or plain
    return f"NotRequired[{plain} | None]" if column.nullable else plain


def _literal(cells: tuple[Cell, ...]) -> str | None:
    """The values as a Literal, where Python has literals of them: not of floats."""
    if not cells or not all(isinstance(each, (str, int)) for each in cells):
        return None
    return f"Literal[{', '.join(_shown(each) for each in cells)}]"


def _known(contract: Contract) -> tuple[Cell, ...]:
    """A classifier's labels, where an output names them."""
    if contract.kind != "classifier":
        return ()
    return next((output.classes for output in contract.outputs if output.classes), ())


def _label(contract: Contract) -> str:
    default = contract.default_output
    known = _literal(_known(contract)) if default.name == "predict" and default.flat else None
    return known or TYPES[default.datatype]


def _classes(contract: Contract) -> str:
    known = _known(contract)
    if not known or not contract.default_output.flat:
        return ""
    shown = ", ".join(_shown(each) for each in known) + ("," if len(known) == 1 else "")
    return f"CLASSES: tuple[Label, ...] = ({shown})  # in the order of predict_proba's columns\n"


def _method(output: Output, label: str) -> str:
    default = output.name == "predict"
    cell = "Label" if default else TYPES[output.datatype]
    kind = f"list[{cell}]" if output.flat else f"list[list[{cell}]]"
    asked = f"self.client.predict(MODEL, rows, {_shown(output.name)}, version=VERSION)"
    number = (label if default else TYPES[output.datatype]) == "float"
    words = "One value a row" if output.flat else f"{output.width} values a row"
    return f'''    def {output.name}(self, rows: Sequence[Row]) -> {kind}:
        """{words}{"; a number that is not finite is nan" if number else ""}."""
        answers: {kind} = {f"nan_for_null({asked})" if number else asked}
        return answers
'''
