"""The faces: one folder each, all alike. `FACES` is the mount order; there is no discovery."""

from __future__ import annotations

from flask import Blueprint

from blueprints.admin.views import face as admin
from blueprints.docs.views import face as docs
from blueprints.health.views import face as health
from blueprints.metrics.views import face as metrics
from blueprints.predict.views import FAST_ENDPOINTS
from blueprints.predict.views import face as predict
from blueprints.repository.views import face as repository

__all__ = ["FACES", "FAST_ENDPOINTS"]

FACES: tuple[Blueprint, ...] = (health, predict, docs, metrics, repository, admin)
