"""Makes a training record in another environment: `PYTHON recorder.py PACKAGE MODEL --sample FILE --out FOLDER`.

PACKAGE is the folder of `tableside_contract`. Only that package is made importable: the folder around it may hold
packages of the server's environment.
"""

from __future__ import annotations

import importlib.util
import os
import sys


def main() -> int:
    """Import the package and run its command. Return its exit code."""
    folder = sys.argv[1]
    spec = importlib.util.spec_from_file_location(
        "tableside_contract", os.path.join(folder, "__init__.py"), submodule_search_locations=[folder]
    )
    assert spec is not None and spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules["tableside_contract"] = package
    spec.loader.exec_module(package)
    command = importlib.import_module("tableside_contract.__main__")
    code: int = command.main(sys.argv[2:])
    return code


if __name__ == "__main__":
    sys.exit(main())
