"""An estimator in a model process, as publish asks it while it learns a contract."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from tableside.contracts.answers import MethodAnswer
from tableside.contracts.schema import Input
from tableside.model_process.child import sample_tables, wire
from tableside.model_process.process_pool import PrivateProcess
from tableside.model_process.remote_runtime import answer_of, load_request
from tableside.own_code.importer import OwnCode
from tableside.runtimes.sklearn import SklearnRuntime
from tableside_contract import cells
from tableside_contract.facts import Categories, Facts

_KEY = "sample"


class RemoteEstimator(SklearnRuntime):
    """The runtime of an estimator that cannot be loaded here. What it says of itself comes from its training record."""

    def __init__(
        self, process: PrivateProcess, artifact: Path, sha256: str, facts: Facts, trusted: tuple[str, ...],
        code: OwnCode | None = None,
    ) -> None:  # fmt: skip
        """Load the artifact in the process, with its own code. Raises ContractBroken if that fails."""
        super().__init__(StandIn(facts, self.run))
        self._facts = facts
        self._process = process
        files = code.files if code is not None else {}
        self._load = load_request(_KEY, artifact, sha256, Input("frame", ()), trusted, files)
        process.load(self._load, self._give_up_at_s)

    @property
    def _give_up_at_s(self) -> float:
        return time.monotonic() + self._process.call_timeout_s

    @cached_property
    def facts(self) -> Facts:
        """What the fitted estimator said of itself where it was trained."""
        return self._facts

    def run(self, method: str, data: Any) -> MethodAnswer:
        """Run `method` on a DataFrame, an array or a list of texts. Raises what RemoteRuntime.run raises."""
        writer = wire.Writer()
        header = {"op": "ask", "key": _KEY, "method": method, "input": sample_tables.write(data, writer)}
        return answer_of(self._process.call(writer.message(header), self._load, self._give_up_at_s))


class StandIn:
    """Has the fitted attributes that facts tell, in scikit-learn's names, for what publish looks at on an estimator."""

    def __init__(self, facts: Facts, run: Callable[[str, Any], MethodAnswer]) -> None:
        """run: calls a method of the estimator, which has those that the facts name."""
        self._methods = {method: partial(run, method) for method in facts["methods"]}
        if facts["feature_names"] is not None:
            self.feature_names_in_ = np.array(facts["feature_names"], dtype=object)
        if facts["n_features"] is not None:
            self.n_features_in_ = facts["n_features"]
        if facts["categories"]:
            self.transformers_ = [(name, _encoder(each), [name]) for name, each in facts["categories"].items()]
            # The facts tell nothing of other columns, which does not mean that the estimator drops them.
            rest = [name for name in facts["feature_names"] or () if name not in facts["categories"]]
            self.transformers_.append(("rest", "passthrough", rest))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._methods:
            raise AttributeError(name)
        return self._methods[name]


def _encoder(categories: Categories) -> object:
    values = np.empty(len(categories["values"]), dtype=object)
    values[:] = [cells.from_json(value) for value in categories["values"]]
    typed = values if categories["dtype"] == "object" else values.astype(categories["dtype"])
    attributes = {"categories_": [typed], "handle_unknown": "error" if categories["closed"] else "ignore"}
    return type("OneHotEncoder", (), attributes)()
