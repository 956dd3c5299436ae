"""Names that choose an output where the protocol does not read them: without an error, the answer would be another one.

MLflow's clients write `params.predict_method`, TF-Serving's `signature_name`, and those of V2 `outputs`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

from tableside.decoding.rules import malformed
from tableside.errors import RequestRejected
from tableside.web.request import RequestContext

NAMES = ("output", "outputs", "predict_method")
V1_PLACE = "name outputs in the query, '?output=...', or in 'signature_name'"
V2_PLACE = 'name outputs in the member \'outputs\': [{"name": "predict_proba"}]'
INVOCATIONS_PLACE = "name outputs in 'params': {\"output\": \"predict_proba\"}, or in the query, '?output=...'"


def refuse(members: Collection[str], place: str, within: str = "", names: Collection[str] = NAMES) -> None:
    """Raise RequestRejected, which says where it belongs, if a name among the members would choose an output.

    members: those of a JSON object. place: the advice. within: the path of the object, which ends with a dot. names:
    those that the object does not read.
    """
    for name in names:
        if name in members:
            raise malformed(f"{within}{name}", f"not read here; {place}")


def refuse_fields(request: msgspec.Struct, names: Collection[str], place: str) -> None:
    """As `refuse`, for the fields of a decoded body that are set."""
    for name in names:
        if getattr(request, name) is not msgspec.UNSET:
            raise malformed(name, f"not read here; {place}")


def refuse_query(context: RequestContext) -> None:
    """Raise RequestRejected if the query of a V2 request would choose an output. Other parameters are ignored."""
    if not context.environ.get("QUERY_STRING"):
        return
    query: Mapping[str, object] = context.query()
    for name in (*NAMES, "classes"):
        if name in query:
            raise RequestRejected(f"the query parameter {name!r} is not read in V2; {V2_PLACE}")
