"""supervisor's two commands, told where this stack lies. They replace supervisor's own scripts in the environment."""

from __future__ import annotations

import os
import sys

from tableside.deployment.layout import environment
from tableside.errors import TablesideError
from tableside.settings import load


def _prepare() -> None:
    try:
        os.environ.update(environment(load(), os.environ))
    except TablesideError as problem:
        sys.stderr.write(f"tableside: {problem}\n")
        raise SystemExit(2) from None


def control() -> None:
    """`supervisorctl`, on the stack the settings name."""
    from supervisor.supervisorctl import main

    _prepare()
    main()


def daemon() -> None:
    """`supervisord`; prefer `tableside run`, which checks ports and folders first."""
    from supervisor.supervisord import main

    _prepare()
    main()
