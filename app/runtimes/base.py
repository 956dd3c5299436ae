"""The seam between serving and the libraries that predict."""

from __future__ import annotations

from typing import Any, Protocol

from tableside.contract.answers import MethodAnswer
from tableside.contract.table import Table


class Runtime(Protocol):
    """A loaded artifact. Called from native threads, several at once."""

    platform: str
    """`<project>_<format>`, as the model metadata shows it."""

    def prepare(self, table: Table) -> Any:
        """What `run` takes for this table; made once a call, whatever number of methods is asked."""

    def run(self, method: str, data: Any) -> MethodAnswer:
        """Answer `method` (`predict`, `transform`, ...) for what `prepare` made.

        An array of shape [rows] or [rows, width], or a list of those where the method answers one a target.
        """
