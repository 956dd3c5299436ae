"""`python -m tableside_contract MODEL --sample FILE --out FOLDER`: writes a training record where MODEL was trained."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Sequence

from tableside_contract.errors import RecordFailed

DESCRIPTION = (
    "Write a training record: the estimator, rows of its sample and its answers to them. Run it in the environment "
    "where the estimator was trained, and publish the folder with `tableside publish NAME FOLDER`."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns its exit status: 0, or 2 after an error, which is one line on standard error."""
    parser = argparse.ArgumentParser(prog="tableside_contract", description=DESCRIPTION)
    parser.add_argument("model", type=Path, help="joblib, pickle or skops file of the fitted estimator")
    parser.add_argument("--sample", type=Path, required=True, help="rows like the training data, .csv or .parquet")
    parser.add_argument("--out", type=Path, required=True, help="the new folder to write")
    parser.add_argument("--target", help="name of the target column, which is dropped from the sample")
    parser.add_argument(
        "--types",
        metavar="COLUMN=DTYPE,...",
        help="types of a CSV sample's columns of which the estimator says nothing",
    )
    parser.add_argument(
        "--code", type=Path, action="append", default=[], help="module (.py) or package folder of your own that the "
        "estimator uses; may be repeated"
    )  # fmt: skip
    parser.add_argument("--as-pickle", action="store_true", help="write the estimator with joblib, not with skops")
    parser.add_argument("--rows", type=int, default=1000, help="rows of the sample to keep at most (default: 1000)")
    given = parser.parse_args(arguments)
    try:
        make_importable(given.code)
        made = write(
            given.model, given.sample, given.out, given.target, given.rows, given.types, as_pickle=given.as_pickle
        )  # fmt: skip
        print(made)  # noqa: T201 - the result
    except RecordFailed as problem:
        print(f"tableside_contract: {problem}", file=sys.stderr)  # noqa: T201 - a command's error
        return 2
    return 0


def make_importable(code: Sequence[Path]) -> None:
    """Add the folders of own modules to the end of the import path. Raises RecordFailed for a path that is none."""
    for path in code:
        if not path.exists():
            raise RecordFailed(f"--code {path}: no such file or folder")
        folder = str(path.absolute().parent)
        if folder not in sys.path:
            sys.path.append(folder)


def write(
    model: Path, sample: Path, out: Path, target: str | None, rows: int, types: str | None = None, *,
    as_pickle: bool = False,
) -> str:  # fmt: skip
    """Write the training record, and return the lines that tell so. Raises RecordFailed."""
    from tableside_contract import declared_types, record

    declared = declared_types.parse(types)
    made = record.contract(
        record.load(model), sample, out, target=target, max_rows=rows, types=declared, as_pickle=as_pickle
    )
    versions = made["trained_with"]
    lines = [
        f"wrote {out}: {made['facts']['estimator']}, {len(made['rows'])} rows, answers of {', '.join(made['answers'])}",
        f"  {made['artifact']['file']}, scikit-learn {versions.get('scikit-learn', 'unknown')}, "
        f"Python {versions['python']}",
        *(f"note: {note}" for note in made["notes"]),
        *(f"note: {method} is left out: {reason}" for method, reason in made["left_out"].items()),
        f"next: copy the folder to the server, and there: tableside publish NAME {out.name}",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
