"""requirements/libraries.txt is complete, and is what is installed."""

from __future__ import annotations

from importlib import metadata

import pytest
from packaging.markers import default_environment
from packaging.utils import canonicalize_name

from tests.unit.test_lock import ENVIRONMENTS, demands, label, locked


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=label)
def test_the_lock_meets_every_requirement(environment: dict[str, str]) -> None:
    """Each requirement of each library is locked in a version that it allows, for each Python and machine."""
    lock = locked(environment, "base", "dev", "libraries")
    unmet = []
    for who, wanted in demands(lock, environment):
        line = lock.get(canonicalize_name(wanted.name))
        if line is None or not wanted.specifier.contains(next(iter(line.specifier)).version, prereleases=True):
            unmet.append(f"{who} requires {wanted}: locked is {line}")
    assert not unmet


def test_what_is_installed_is_what_is_locked() -> None:
    """The libraries that these tests use have the locked versions."""
    for name, line in locked({**default_environment()}, "libraries").items():
        assert line.specifier.contains(metadata.version(name), prereleases=True), name
