"""What NVIDIA's perf_analyzer asks of a V2 server beside the protocol itself: a model's configuration and statistics.

Source: triton-inference-server/server, docs/protocol/extension_model_configuration.md and extension_statistics.md.
"""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response

from tableside.contract.schema import Contract
from tableside.decoding.tensors import inputs
from tableside.process import worker_slots
from tableside.serving.servable import Servable
from tableside.telemetry import metrics
from tableside.telemetry.metrics import Totals
from tableside.web import response
from tableside.web.extensions import catalog, extensions, servable, settings

MOST_ROWS = 65536
"""What a client may choose as its batch size; a body may hold more rows."""

STAGES = {
    "queue": "queue", "compute_input": "decode", "compute_infer": "predict", "compute_output": "encode",
    "cache_hit": "cache",
}  # fmt: skip


def config(name: str, version: str | None = None) -> Response:
    """ModelConfig: dims are of one row, because max_batch_size is not 0."""
    contract = servable(name, version).contract
    assert contract is not None
    return response.json_response(_config(contract))


def _config(contract: Contract) -> dict[str, Any]:
    return {
        "name": contract.name,
        "platform": "scikit-learn_skops",
        "backend": "tableside",
        "max_batch_size": MOST_ROWS,
        "input": [_dims(each["name"], each["datatype"], each["shape"][1]) for each in inputs(contract.input)],
        "output": [_dims(output.name, output.datatype, output.width) for output in contract.outputs],
    }


def _dims(name: str, datatype: str, width: int) -> dict[str, Any]:
    return {"name": name, "data_type": f"TYPE_{'STRING' if datatype == 'BYTES' else datatype}", "dims": [width]}


def stats(name: str | None = None, version: str | None = None) -> Response:
    """Counts and nanoseconds over all workers since the stack's counters began."""
    serving = catalog()
    if name is None:
        chosen = list(serving)
    else:
        found = serving.find(name, version)
        chosen = [found] if version is not None else list(serving.model(found.name).servables)
    held = worker_slots.held(settings().run_dir / "worker_slots")
    sums = metrics.totals(extensions().metrics, metrics.folder(), held)
    return response.json_response({"model_stats": [_stats(servable, sums) for servable in chosen]})


def _stats(servable: Servable, sums: Totals) -> dict[str, Any]:
    def total(sample: str) -> float:
        return sums.get((sample, servable.name, str(servable.version)), 0.0)

    def spent(count: float, seconds: float) -> dict[str, int]:
        return {"count": int(count), "ns": int(seconds * 1e9)}

    answered, failed = total("tableside_requests_total:200"), total("tableside_requests_total")
    stages = {
        key: spent(total(f"tableside_stage_seconds_count:{stage}"), total(f"tableside_stage_seconds_sum:{stage}"))
        for key, stage in STAGES.items()
    }
    missed = total("tableside_cache_requests_total") - stages["cache_hit"]["count"]
    return {
        "name": servable.name,
        "version": str(servable.version),
        "inference_count": int(total("tableside_rows_total")),
        "execution_count": int(total("tableside_batch_rows_count")),
        "inference_stats": {
            "success": spent(answered, total("tableside_request_seconds_sum")),
            "fail": spent(failed, 0),
            **stages,
            "cache_miss": spent(max(0, missed), 0),
        },
        "batch_stats": [],
    }


def mount(blueprint: Blueprint) -> None:
    """Add the routes of the two extensions."""
    blueprint.add_url_rule("/v2/models/stats", view_func=stats, endpoint="stats_all")
    for prefix in ("/v2/models/<name>", "/v2/models/<name>/versions/<version>"):
        blueprint.add_url_rule(f"{prefix}/config", view_func=config, endpoint="model_config")
        blueprint.add_url_rule(f"{prefix}/stats", view_func=stats, endpoint="model_stats")
