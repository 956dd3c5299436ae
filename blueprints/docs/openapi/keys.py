"""The keys that callers send, in the document: the security scheme, and which scope each operation needs."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from tableside.access_keys import Scope
from tableside.blueprints.docs.openapi.cell_schemas import Schema

SCHEME = "key"
"""The name of the security scheme. The page `/docs` (static/init.js) has it too."""
_KEY: Schema = {
    "type": "http",
    "scheme": "bearer",
    "description": "A key with the scope that the operation names, or an admin key: `Authorization: Bearer KEY`. The "
    "operator makes it with `tableside keys add NAME --scope predict`.",
}


def require(document: dict[str, Any], open_routes: Collection[str]) -> None:
    """Add the scheme to a document, and to each operation the scope of keys that it needs; none on an open route."""
    document["components"]["securitySchemes"] = {SCHEME: _KEY}
    for path, item in document["paths"].items():
        for operation in item.values():
            operation["security"] = [] if path in open_routes else [{SCHEME: [Scope.PREDICT.value]}]
