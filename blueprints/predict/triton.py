"""Model configuration and statistics: two extensions of V2 that NVIDIA's perf_analyzer needs.

Sources: triton-inference-server/server, docs/protocol/extension_model_configuration.md and extension_statistics.md.
"""

from __future__ import annotations

import time

from flask import Blueprint, Response

from tableside.contracts.schema import Contract
from tableside.decoding.tensors import inputs
from tableside.serving.servable import Servable
from tableside.telemetry import metrics
from tableside.telemetry.metrics import Totals
from tableside.web import host_metrics, response
from tableside.web.extensions import Extensions, catalog, extensions, servable

MAX_BATCH_SIZE = 65536
"""The largest batch size that perf_analyzer may choose. It is not a limit: a body may hold more rows."""

STATS_AGE_S = 1.0
"""How old the statistics may be, in seconds."""
STAGES = {
    "queue": "queue", "compute_input": "decode", "compute_infer": "predict", "compute_output": "encode",
    "cache_hit": "cache",
}  # fmt: skip
"""Members of Triton's `inference_stats`, each with the stage of a request trace that it reports."""


def config(name: str, version: str | None = None) -> Response:
    """The ModelConfig. `dims` describe one row, because `max_batch_size` is not 0."""
    contract = servable(name, version).contract
    assert contract is not None  # a servable that can answer has one
    return response.json_response(_config(contract))


def _config(contract: Contract) -> dict[str, object]:
    return {
        "name": contract.name,
        "platform": "scikit-learn_skops",
        "backend": "tableside",
        "max_batch_size": MAX_BATCH_SIZE,
        "input": [_dims(tensor["name"], tensor["datatype"], tensor["shape"][1]) for tensor in inputs(contract.input)],
        "output": [_dims(output.name, output.datatype, output.width) for output in contract.outputs],
    }


def _dims(name: str, datatype: str, width: int) -> dict[str, object]:
    return {"name": name, "data_type": f"TYPE_{'STRING' if datatype == 'BYTES' else datatype}", "dims": [width]}


def stats(name: str | None = None, version: str | None = None) -> Response:
    """Request counts and times in nanoseconds, summed over all workers of this host since the stack started."""
    serving = catalog()
    if name is None:
        chosen = list(serving)
    else:
        servable = serving.find(name, version)
        chosen = [servable] if version is not None else list(serving.model(servable.name).servables)
    totals = _totals(extensions())
    return response.json_response({"model_stats": [_stats(servable, totals) for servable in chosen]})


def _totals(parts: Extensions) -> Totals:
    """The sums of the metrics, at most STATS_AGE_S old: reading all metric files takes longer than a prediction."""
    read_at_s, found = parts.metrics.recent_totals
    if time.monotonic() - read_at_s > STATS_AGE_S or metrics.folder() is None:
        found = host_metrics.totals(parts)
        parts.metrics.recent_totals = (time.monotonic(), found)
    return found


def _stats(servable: Servable, totals: Totals) -> dict[str, object]:
    def total(sample: str) -> float:
        return totals.get((sample, servable.name, str(servable.version)), 0.0)

    def stage_total(stage: str) -> dict[str, int]:
        sample = "tableside_stage_seconds"
        return _duration(total(f"{sample}_count:{stage}"), total(f"{sample}_sum:{stage}"))

    stages = {member: stage_total(stage) for member, stage in STAGES.items()}
    misses = total("tableside_cache_requests_total") - stages["cache_hit"]["count"]
    return {
        "name": servable.name,
        "version": str(servable.version),
        "inference_count": int(total("tableside_rows_total")),
        "execution_count": int(total("tableside_batch_rows_count")),
        "inference_stats": {
            "success": _duration(total("tableside_requests_total:200"), total("tableside_request_seconds_sum")),
            "fail": _duration(total("tableside_requests_total"), 0),
            **stages,
            "cache_miss": _duration(max(0, misses), 0),
        },
        "batch_stats": [],
    }


def _duration(count: float, seconds: float) -> dict[str, int]:
    return {"count": int(count), "ns": int(seconds * 1e9)}


def mount(blueprint: Blueprint) -> None:
    """Add the routes of both extensions to the blueprint."""
    blueprint.add_url_rule("/v2/models/stats", view_func=stats, endpoint="stats_all")
    for prefix in ("/v2/models/<name>", "/v2/models/<name>/versions/<version>"):
        blueprint.add_url_rule(f"{prefix}/config", view_func=config, endpoint="model_config")
        blueprint.add_url_rule(f"{prefix}/stats", view_func=stats, endpoint="model_stats")
