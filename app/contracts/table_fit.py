"""Whether a table that was decoded for one version is a table of another one, and which outputs the other lacks."""

from __future__ import annotations

from collections.abc import Sequence

from tableside.contracts.schema import Column, Contract, Input, Output


def input_differences(served: Input, candidate: Input) -> list[str]:
    """Return in words why a table that was decoded for one version is none for another; empty if it is."""
    before = {column.name: column for column in served.columns}
    after = {column.name: column for column in candidate.columns}
    found = [f"the column {name!r} is gone" for name in before if name not in after]
    found += [f"the column {name!r} is new" for name in after if name not in before]
    found += [
        f"the column {name!r} is {_type(column)}, and was {_type(before[name])}"
        for name, column in after.items()
        if name in before and _type(column) != _type(before[name])
    ]
    if not found and list(before) != list(after):
        found.append("the columns have another order")
    return found


def output_differences(served: Sequence[Output], candidate: Contract) -> list[str]:
    """Return in words which outputs of one version another one lacks, or has in another shape; empty for none."""
    found = []
    for output in served:
        other = candidate.output(output.name)
        if other is None:
            found.append(f"the output {output.name!r} is gone")
        elif (other.width, other.flat) != (output.width, output.flat):
            found.append(f"the output {output.name!r} has {other.width} columns, and had {output.width}")
        elif other.classes != output.classes:
            found.append(f"the output {output.name!r} has other classes, or another order of them")
    return found


def _type(column: Column) -> str:
    return f"{column.datatype} ({column.dtype})" if column.is_date else column.datatype
