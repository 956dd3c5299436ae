"""The fixtures of the end-to-end tests, for the stack that clients ask, and what a client that is not here means."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.clients.environments import NotInstalled
from tests.e2e.conftest import make_stack, published, trained

__all__ = ["make_stack", "published", "trained"]


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Iterator[None]:
    """A client that cannot be installed on this machine fails nothing: the end of the run says why it was not run."""
    try:
        return (yield)
    except NotInstalled as problem:
        pyfuncitem.user_properties.append(("said", f"not run: {problem}"))
        return True
