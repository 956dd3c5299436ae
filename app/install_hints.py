"""How to install the optional packages of Tableside."""

from __future__ import annotations

from tableside import __version__


def install_hint(extra: str) -> str:
    """Return the commands that install the packages of an extra: beside a wheel of this version, and in a checkout.

    extra: the name of the extra in pyproject.toml, which is that of the locked file too. The wheel is named as a file,
    because the name `tableside` alone would be looked up in a package index.
    """
    return (
        f"pip install 'tableside-{__version__}-py3-none-any.whl[{extra}]', or in a checkout "
        f".venv/bin/pip install --require-hashes --no-deps -r requirements/{extra}.txt"
    )
