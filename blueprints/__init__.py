"""The blueprints: one folder each, all alike. `FACES` is the mount order; there is no discovery."""

from __future__ import annotations

from flask import Blueprint

from tableside.blueprints.admin.views import blueprint as admin
from tableside.blueprints.docs.views import blueprint as docs
from tableside.blueprints.health.views import blueprint as health
from tableside.blueprints.metrics.views import blueprint as metrics
from tableside.blueprints.predict.views import FAST_ENDPOINTS
from tableside.blueprints.predict.views import blueprint as predict
from tableside.blueprints.repository.views import blueprint as repository

__all__ = ["FACES", "FAST_ENDPOINTS"]

BLUEPRINTS: tuple[Blueprint, ...] = (health, predict, docs, metrics, repository, admin)
