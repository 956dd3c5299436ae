"""Runs in a client's own environment: sends each table in each spelling of the library, and prints the answers.

Standard input has the job as JSON, standard output gets a JSON line for each answer. Nothing of the project is here.
"""

import json
import sys
import urllib.parse
import urllib.request
import warnings

warnings.simplefilter("ignore")


def job():
    return json.load(sys.stdin)


def frame(table):
    """The table as a DataFrame with the trained dtypes; a missing text is NaN, as pandas reads it from a file."""
    import numpy as np
    import pandas as pd

    columns = {}
    for name, dtype, cells in table:
        if dtype.startswith("datetime"):
            columns[name] = pd.Series(pd.to_datetime(cells)).astype(dtype)
        elif dtype in ("object", "str"):
            columns[name] = pd.Series([np.nan if cell is None else cell for cell in cells], dtype=object)
        else:
            columns[name] = pd.Series([np.nan if cell is None else cell for cell in cells]).astype(dtype)
    return pd.DataFrame(columns)


def plain_rows(table):
    """Rows of Python values; a missing cell is a NaN where the column has numbers, else None; dates are text."""
    nan = float("nan")
    columns = [
        [nan if cell is None and dtype.startswith("float") else cell for cell in cells] for _, dtype, cells in table
    ]
    return [list(row) for row in zip(*columns, strict=False)]


def run(given, spellings):
    """spellings: name to (model, function of a table that returns numbers)."""
    for name, (model, send) in spellings.items():
        for kind, table in given["tables"][model].items():
            query = urllib.parse.urlencode({"spelling": name, "kind": kind})
            urllib.request.urlopen(given["url"] + "/__case__?" + query, timeout=60).close()
            line = {"spelling": name, "model": model, "kind": kind}
            try:
                line["answer"] = [float(each) for each in send(table)]
            except Exception as problem:  # the harness looks at what was answered
                line["problem"] = f"{type(problem).__name__}: {str(problem)[:300]}"
            print(json.dumps(line), flush=True)
