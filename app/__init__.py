"""Tableside: an HTTP server of scikit-learn models.

`publish` puts an estimator into a model repository, `contract` writes what publish needs where the estimator is
trained, and `Client` asks a server for predictions. Each is imported when it is used, so that importing one subpackage
does not import the others.
"""

import importlib

__version__ = "0.1.0"
__all__ = ["Client", "__version__", "contract", "publish"]

_PLACES = {"publish": "tableside.publishing.publish", "contract": "tableside_contract", "Client": "tableside_client"}
"""The public names and the modules that have them. Type checkers read __init__.pyi."""


def __getattr__(name: str) -> object:
    """Return a public name. Raises AttributeError for any other, and ImportError if its module cannot be imported."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    """Return the names of this module, with those that are not imported yet."""
    return sorted({*globals(), *__all__})
