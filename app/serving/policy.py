"""How one version is served: one immutable object, made at each reload and replaced as a whole."""

from __future__ import annotations

import msgspec

from tableside.batching.queue import BatchPolicy
from tableside.contract.schema import Contract
from tableside.decoding.rules import Rules
from tableside.repository.model_toml import ModelConfig
from tableside.settings import Settings


class Policy(msgspec.Struct, frozen=True):
    """rules: how tables are read. batching: how requests wait and share calls. cache_bytes: memory for answers; 0: none
    are kept. fast: whether fast backends may answer.
    """

    rules: Rules = Rules()
    batching: BatchPolicy = BatchPolicy()
    cache_bytes: int = 0
    fast: bool = True


def make_policy(config: ModelConfig, contract: Contract | None, settings: Settings) -> Policy:
    """The policy that a model.toml, the contract of one version and the settings give together."""
    columns, predict = config.columns, settings.predict
    return Policy(
        Rules(predict.max_cell_errors, predict.show_values, columns.missing, columns.extra, columns.duplicate),
        _batch_policy(config, contract, settings),
        config.cache.max_bytes,
        config.runtime == "auto",
    )


def _batch_policy(config: ModelConfig, contract: Contract | None, settings: Settings) -> BatchPolicy:
    """Requests share a call where publish measured that they may and model.toml lets them.

    Shared calls run one at a time; calls that are not shared leave one thread to other models.
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
