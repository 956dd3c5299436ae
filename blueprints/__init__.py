"""The blueprints: one folder for each group of routes. `BLUEPRINTS` lists them in the order in which they are mounted.

Each folder holds `views.py` (the blueprint, who may call it, and its views); `schemas.py` where routes take bodies;
`templates/NAME/` and `static/` where it has pages.
"""

from __future__ import annotations

from flask import Blueprint

from tableside.blueprints.admin.page_views import blueprint as page
from tableside.blueprints.admin.views import blueprint as admin
from tableside.blueprints.docs.views import blueprint as docs
from tableside.blueprints.health.views import blueprint as health
from tableside.blueprints.metrics.views import blueprint as metrics
from tableside.blueprints.predict.views import FAST_ENDPOINTS
from tableside.blueprints.predict.views import blueprint as predict
from tableside.blueprints.repository.views import blueprint as repository

__all__ = ["BLUEPRINTS", "FAST_ENDPOINTS"]

BLUEPRINTS: tuple[Blueprint, ...] = (health, predict, docs, metrics, repository, admin, page)
