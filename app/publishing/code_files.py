"""Collects the trainer's own modules, which a version carries in its folder `code/`."""

from __future__ import annotations

import keyword
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from tableside.errors import PublishFailed
from tableside.own_code import importer
from tableside.own_code.importer import OwnCode
from tableside.repository.verified_files import is_safe

MAX_FILES = 1000
MAX_BYTES = 10_000_000
"""The largest total of own code. Larger folders are mostly given by mistake, such as one with an environment in it."""
COMPILED = frozenset((".so", ".pyd", ".dll", ".dylib"))
PICKLED = frozenset((".pkl", ".pickle", ".joblib", ".dill", ".pt", ".pth"))
SKIPPED = frozenset((".pyc", ".pyo"))
LIBRARIES = frozenset(("numpy", "scipy", "pandas", "sklearn", "skops", "joblib", "pyarrow"))
RESERVED = LIBRARIES | {"tableside", "tableside_contract"} | sys.stdlib_module_names
"""Modules that other code of the server imports. Own code cannot have their names."""


def collect(paths: Sequence[Path | str], option: str = "--code") -> OwnCode | None:
    """Read the modules and packages at `paths`, and make them importable below a package of their own.

    paths: `.py` files, and folders of packages, which are read with their data files. option: how errors name a path.
    Returns None for no paths. Nothing is imported. Raises PublishFailed, which names the path and what to change.
    """
    content: dict[str, bytes] = {}
    origins: dict[str, str] = {}
    for each in paths:
        path = Path(each).absolute()
        top = _module_name(path, f"{option} {each}")
        if any(file.partition("/")[0].removesuffix(".py") == top for file in content):
            raise PublishFailed(f"{option} {each}: another path has the module {top!r} already. Give each module once")
        for file in _files(path, f"{option} {each}"):
            inner = file.relative_to(path.parent).as_posix()
            content[inner], origins[inner] = _read(file, inner, f"{option} {each}"), str(file)
            if len(content) > MAX_FILES or sum(map(len, content.values())) > MAX_BYTES:
                raise PublishFailed(
                    f"{option} {each}: own code can have {MAX_FILES} files and {MAX_BYTES // 1_000_000} MB at most. "
                    "Give the files and packages that the model imports, not a whole project"
                )
    return importer.install(content, origins.__getitem__) if content else None


def _module_name(path: Path, label: str) -> str:
    """The name under which a path is imported. Raises PublishFailed where there is none."""
    if not path.exists():
        raise PublishFailed(f"{label}: no such file or folder")
    if not path.is_dir() and path.suffix != ".py":
        raise PublishFailed(f"{label}: give a .py file, or the folder of a package")
    name = path.name if path.is_dir() else path.stem
    if not (name.isidentifier() and name.isascii()) or keyword.iskeyword(name):
        raise PublishFailed(
            f"{label}: {name!r} is no name of a module: use letters, digits and _. Give the files and packages that "
            "the model imports"
        )
    if name in RESERVED:
        raise PublishFailed(
            f"{label}: {name!r} is the name of a module of Python or of a library that the server uses. Rename the "
            f"file, for example to my_{name}.py, and train the model again with that import"
        )
    return name


def _files(path: Path, label: str) -> Iterator[Path]:
    """The files of a module or package in order, without caches and hidden files. Raises PublishFailed."""
    if not path.is_dir():
        yield path
        return
    found = [file for file in sorted(path.rglob("*")) if not _is_skipped(file.relative_to(path))]
    if not any(file.suffix == ".py" for file in found):
        raise PublishFailed(f"{label}: the folder has no .py file in it")
    for file in found:
        if file.is_symlink():
            raise PublishFailed(f"{label}: {file.relative_to(path.parent)} is a link. Copy what it points to")
        if file.is_file():
            yield file


def _is_skipped(path: Path) -> bool:
    hidden = any(part.startswith(".") or part == "__pycache__" for part in path.parts)
    return hidden or path.suffix in SKIPPED


def _read(file: Path, inner: str, label: str) -> bytes:
    if not is_safe(inner):
        raise PublishFailed(
            f"{label}: rename {inner}: letters, digits, '_', '-', '.' and spaces are the valid characters"
        )
    if file.suffix in COMPILED:
        raise PublishFailed(
            f"{label}: {inner} is compiled code, which a version cannot carry. Install the package in the environment "
            "of the server, and add its types to repository.trusted_types"
        )
    if file.suffix in PICKLED:
        raise PublishFailed(
            f"{label}: {inner} is a pickle, which could run code when it is read. Keep what it holds in an attribute "
            "of the fitted estimator, or in a text file"
        )
    try:
        return file.read_bytes()
    except OSError as problem:
        raise PublishFailed(f"{label}: {inner}: {problem.strerror}") from problem


def check_imports(code: OwnCode) -> None:
    """Raise PublishFailed when the code has imported a module that the server's environment does not have.

    Call it after the code has answered: `foreign` then names what it imported. This process may see more modules than
    the server, for example those in the folder of the trainer's script.
    """
    doubtful = sorted(code.foreign.keys() - RESERVED)
    if not doubtful:
        return
    program = "import sys, importlib.util as u; print(*(n for n in sys.argv[1:] if u.find_spec(n) is None))"
    command = [sys.executable, "-P", "-c", program, *doubtful]
    missing = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()  # noqa: S603
    for name in missing:
        spec = find_spec(name)
        origin = spec.origin if spec is not None else None
        where = f", which is {origin}" if origin else ""
        raise PublishFailed(
            f"{code.foreign[name]} imports the module {name!r}{where}, and the environment of the server does not have "
            f"it. Add `--code {_path_of(origin) if origin else name + '.py'}`, or install it there"
        )


def _path_of(origin: str) -> str:
    """What `--code` takes for a module whose source is at `origin`: the folder of a package."""
    path = Path(origin)
    return str(path.parent if path.name == "__init__.py" else path)
