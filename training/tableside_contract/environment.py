"""The versions of Python and of the libraries that an estimator's answers depend on."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Iterable

PACKAGES = ("scikit-learn", "numpy", "scipy", "pandas", "skops", "joblib")
_DISTRIBUTIONS = {
    "sklearn": "scikit-learn", "imblearn": "imbalanced-learn", "category_encoders": "category-encoders",
    "feature_engine": "feature-engine",
}  # fmt: skip
"""Top-level module to the package that provides it, where the names differ."""


def environment(libraries: Iterable[str] = (), packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Return the versions of Python, of the installed packages and of libraries, and the machine such as `x86_64`.

    libraries: top-level modules, as `Facts.libraries` names them; those without a version are left out.
    """
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for package in [*packages, *(_DISTRIBUTIONS.get(library, library) for library in libraries)]:
        installed = _version(package)
        if installed:
            found.setdefault(package, installed)
    return found


def _version(package: str) -> str:
    try:
        return str(version(package))
    except PackageNotFoundError:
        module: Any = sys.modules.get(package)
        found = getattr(module, "__version__", "")
        return found if isinstance(found, str) else ""


def same_minor(one: str, other: str) -> bool:
    """Whether two versions have the same major and minor number, such as 1.6.0 and 1.6.1."""
    return one.split(".")[:2] == other.split(".")[:2]
