"""The policy of one version: how it is served. A reload makes a new one; it is immutable and replaced as a whole."""

from __future__ import annotations

import msgspec

from tableside.batching.queue import BatchPolicy
from tableside.contracts import id_column
from tableside.contracts.schema import Contract, Input
from tableside.decoding.rules import Rules
from tableside.repository.model_toml import ModelConfig
from tableside.settings import Settings


class Policy(msgspec.Struct, frozen=True):
    """How one version is served.

    rules: how request bodies become tables. batching: how requests wait and share calls. cache_bytes: the size limit of
    the response cache; 0 turns it off. fast: whether fast backends may be used. input: the columns that requests may
    have, if there is an id column beside those of the model. log_ids: whether ids stand in the access log. problem:
    what of model.toml cannot be done with this version.
    """

    rules: Rules = Rules()
    batching: BatchPolicy = BatchPolicy()
    cache_bytes: int = 0
    fast: bool = True
    input: Input | None = None
    log_ids: bool = False
    problem: str = ""


def make_policy(config: ModelConfig, contract: Contract | None, settings: Settings) -> Policy:
    """Return the policy of a version that follows from its model.toml, its contract and the settings.

    contract: None for a version that has not been loaded; its requests do not share calls.
    """
    columns, predict = config.columns, settings.predict
    problem = ""
    if contract is not None and columns.id:
        problem = id_column.conflict(contract.input, contract.outputs, columns.id)
    has_id = contract is not None and columns.id and not problem
    return Policy(
        Rules(
            predict.max_cell_errors,
            predict.show_values,
            columns.missing,
            columns.extra,
            columns.duplicate,
            settings.server.max_rows,
            {name: frozenset(words) for name, words in columns.missing_words.items()},
            strict_json=predict.strict_json,
        ),  # fmt: skip
        _batch_policy(config, contract, settings),
        config.cache.max_bytes,
        config.runtime == "auto",
        id_column.with_id(contract.input, columns.id) if contract is not None and has_id else None,
        columns.log_id,
        problem,
    )


def _batch_policy(config: ModelConfig, contract: Contract | None, settings: Settings) -> BatchPolicy:
    """Requests share calls if publish measured that their answers allow it (`batch_invariance`) and model.toml does not
    forbid it. Shared calls run one at a time. Other calls use all native threads but one, which other models can use.
    """
    measured = contract.batch_invariance if contract is not None else None
    allowed = ("exact",) if config.batching.require == "exact" else ("exact", "ulp")
    shares_calls = config.batching.enabled and measured in allowed
    return BatchPolicy(
        max_batch_rows=config.batching.max_batch_rows,
        max_queue_rows=settings.predict.max_queue_rows,
        max_concurrent_calls=1 if shares_calls else max(1, settings.server.predict_threads - 1),
        shares_calls=shares_calls,
        inline_below_s=settings.predict.inline_below_ms / 1000,
    )
