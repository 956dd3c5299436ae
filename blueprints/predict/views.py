"""The predict face: both protocols, one blueprint."""

from __future__ import annotations

from flask import Blueprint

from app.web.guard import Access, allow
from blueprints.predict import invocations, triton, v1, v2

face = Blueprint("predict", __name__)
allow(face, Access.EVERYONE)
v2.mount(face)
triton.mount(face)
v1.mount(face)
invocations.mount(face)
