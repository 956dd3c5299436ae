"""Describes an estimator in another environment: `PYTHON recorder.py PACKAGE MODULES MODEL FOLDER`.

PACKAGE is the folder of `tableside_contract`. Only that package is made importable: the folder around it may hold
packages of the server's environment. MODULES is a folder with the trainer's own modules. The description and the
artifact are written into FOLDER.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path


def main() -> int:
    """Import the package and describe the estimator. Return the exit code: 2 after an error, which is on stderr."""
    package_folder, modules, model, folder = sys.argv[1:]
    sys.path.insert(0, modules)
    spec = importlib.util.spec_from_file_location(
        "tableside_contract", os.path.join(package_folder, "__init__.py"), submodule_search_locations=[package_folder]
    )
    assert spec is not None and spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules["tableside_contract"] = package
    spec.loader.exec_module(package)
    described = importlib.import_module("tableside_contract.described")
    try:
        described.describe_file(Path(model), Path(folder))
    except package.RecordFailed as problem:
        sys.stderr.write("{}\n".format(" ".join(str(problem).split())))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
