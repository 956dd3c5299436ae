"""The fixtures of the end-to-end tests, for the stack that the clients ask."""

from tests.e2e.conftest import make_stack, published, trained

__all__ = ["make_stack", "published", "trained"]
