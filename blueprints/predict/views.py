"""The predict blueprint. Each protocol has a module of its own, which adds its routes here."""

from __future__ import annotations

from collections.abc import Mapping

from flask import Blueprint

from tableside.blueprints.predict import invocations, model_info, triton, v1, v2
from tableside.web.auth import Access, allow
from tableside.web.dispatch import Handler

blueprint = Blueprint("predict", __name__)
allow(blueprint, Access.PREDICT)
v2.mount(blueprint)
triton.mount(blueprint)
v1.mount(blueprint)
invocations.mount(blueprint)
model_info.mount(blueprint)

FAST_ENDPOINTS: Mapping[str, Handler] = {
    "predict.v1_predict": v1.infer,
    "predict.v2_infer": v2.infer,
    **{f"predict.{endpoint}": invocations.infer for endpoint in invocations.ENDPOINTS},
}
"""The endpoints that the fast dispatch (app/web/dispatch.py) answers, each with its handler."""
