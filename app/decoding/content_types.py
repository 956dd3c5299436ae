"""Content types of V2: what the data of an input, or the request, stands for.

MLServer's clients declare them in `parameters.content_type`, and its codecs follow them (docs.seldon.ai/mlserver,
"Content Types (and Codecs)"). A declaration that is not followed would give another answer than MLServer's, so that an
unknown one, and one that contradicts the datatype or the column, is refused.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence

import numpy as np

from tableside.contracts.schema import Column
from tableside.decoding.rules import Cells, malformed
from tableside.errors import CellError, RequestRejected

NAME = "content_type"
_NUMPY, _PANDAS, _TEXT, _BASE64, _DATES = "np", "pd", "str", "base64", "datetime"
OF_INPUT = (_NUMPY, _TEXT, _BASE64, _DATES)
OF_REQUEST = (_NUMPY, _PANDAS, _TEXT)
OF_OUTPUT = (_NUMPY, _TEXT)
"""The content types that an input, a request and a requested output may have."""
_ELSEWHERE = {
    _PANDAS: "is for the whole request: write it in its own 'parameters'",
    _BASE64: "is for one input: write it in 'inputs[0].parameters'",
    _DATES: "is for one input: write it in 'inputs[0].parameters'",
}
"""Where a content type belongs that is known, but not there."""
_MOST_ERRORS = 20


def read(parameters: Mapping[str, object], known: Sequence[str], place: str) -> str:
    """Return the content type in the parameters; empty if there is none. Raises RequestRejected for an unknown one.

    place: the path of the parameters.
    """
    kind = parameters.get(NAME)
    if kind is None or kind == "":
        return ""
    path = f"{place}.{NAME}"
    if not isinstance(kind, str):
        raise malformed(path, f"expected a string, one of {', '.join(known)}")
    if kind not in known:
        reason = f"{kind!r} {_ELSEWHERE[kind]}" if kind in _ELSEWHERE else "unknown content type"
        raise malformed(path, f"{reason}; known here: {', '.join(known)}")
    return kind


def check_request(parameters: Mapping[str, object], inputs: Sequence[tuple[str, Mapping[str, object] | None]]) -> None:
    """Check the content type of a request. inputs: the datatype and the parameters of each input.

    `np` and `pd` are how the table is read anyway: by the names and shapes of the inputs. `str` holds for each input
    that has no content type of its own. Raises RequestRejected.
    """
    if read(parameters, OF_REQUEST, "parameters") != _TEXT:
        return
    for at, (datatype, own) in enumerate(inputs):
        if datatype != "BYTES" and not (own or {}).get(NAME):
            raise malformed(
                f"parameters.{NAME}", f"'str' is for inputs of datatype BYTES, and inputs[{at}] has another"
            )


def decoded(
    cells: Cells, parameters: Mapping[str, object], datatype: str, columns: Sequence[Column], place: str
) -> Cells:
    """Return the cells of an input, of shape [cells], as its content type says.

    columns: those that it holds, as far as they are known. place: its path. Raises RequestRejected.
    """
    kind = read(parameters, OF_INPUT, f"{place}.parameters")
    if kind in ("", _NUMPY):
        return cells
    if datatype != "BYTES":
        raise malformed(f"{place}.parameters.{NAME}", f"{kind!r} is for the datatype BYTES, and this input has another")
    if kind == _DATES and (others := [column.name for column in columns if not column.is_date]):
        raise malformed(f"{place}.parameters.{NAME}", f"the column {others[0]} holds no dates")
    return _from_base64(cells, f"{place}.data") if kind == _BASE64 else cells


def _from_base64(cells: Cells, path: str) -> list[object]:
    found: list[object] = cells.tolist() if isinstance(cells, np.ndarray) else list(cells)
    errors: list[CellError] = []
    for at, cell in enumerate(found):
        if isinstance(cell, str):
            try:
                found[at] = base64.b64decode(cell, validate=True).decode()
            except UnicodeDecodeError:
                errors.append(CellError(f"{path}[{at}]", "what this base64 holds is no text in UTF-8"))
            except ValueError:
                errors.append(CellError(f"{path}[{at}]", "not base64 (RFC 4648, section 4, with padding)"))
            if len(errors) == _MOST_ERRORS:
                break
    if errors:
        raise RequestRejected("the request is malformed", tuple(errors))
    return found
