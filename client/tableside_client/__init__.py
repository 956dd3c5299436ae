"""A small typed client of Tableside: predictions, readiness and metadata over HTTP. Uses only the standard library."""

from tableside_client.client import Client, Rows
from tableside_client.errors import BadPlace, RequestFailed, ServerFailed, TablesideError, Unavailable, Unreachable
from tableside_client.rows import nan_for_null

__all__ = [
    "BadPlace",
    "Client",
    "RequestFailed",
    "Rows",
    "ServerFailed",
    "TablesideError",
    "Unavailable",
    "Unreachable",
    "nan_for_null",
]
