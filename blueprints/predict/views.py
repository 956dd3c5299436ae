"""The predict face: both protocols, one blueprint."""

from __future__ import annotations

from collections.abc import Mapping

from flask import Blueprint

from app.web.exchange import Handler
from app.web.guard import Access, allow
from blueprints.predict import invocations, triton, v1, v2

face = Blueprint("predict", __name__)
allow(face, Access.EVERYONE)
v2.mount(face)
triton.mount(face)
v1.mount(face)
invocations.mount(face)

FAST_ENDPOINTS: Mapping[str, Handler] = {
    "predict.v1_predict": v1.infer,
    "predict.v2_infer": v2.infer,
    **{f"predict.{endpoint}": invocations.invocations for endpoint in invocations.ENDPOINTS},
}
"""Endpoints that the fast dispatch (app/web/express.py) answers, each with its handler."""
