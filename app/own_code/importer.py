"""Imports a version's own code from memory, below a package of its own.

The source is compiled from the bytes that were hashed. No file is looked for: the package's `__path__` is empty, so
neither a compiled file, nor a file that was added to the folder later, nor a module of the same name elsewhere is used.
Inside the code, `import churnlib` means the version's own `churnlib`, whenever it runs: the modules have an
`__import__` of their own, which is the way that `exec` documents. The original names never stay in `sys.modules`.

Runs in other environments too: Python 3.8, no import of other parts of Tableside.
"""

from __future__ import annotations

import builtins
import hashlib
import importlib
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.abc import InspectLoader, Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import decode_source
from types import ModuleType

from .resources import Resource, ResourceReader  # relative: a model process knows this package by another name

PREFIX = "tableside_code_"
"""Beginning of the names of the packages below which own code is imported."""
_NAME_DIGITS = 32


_lock = threading.RLock()
_installed: dict[str, OwnCode] = {}


def digest_of(digests: Mapping[str, str]) -> str:
    """Return a SHA-256 of files: path to SHA-256 in hexadecimal. It does not depend on their order."""
    lines = "".join(f"{digests[path]}  {path}\n" for path in sorted(digests))
    return hashlib.sha256(lines.encode()).hexdigest()


def package_name(digests: Mapping[str, str]) -> str:
    """Return the name of the package for these files: path below `code/` to SHA-256 in hexadecimal."""
    return PREFIX + digest_of(digests)[:_NAME_DIGITS]


class OwnCode:
    """The files of own code, and the package below which they are imported.

    files: path below `code/`, such as `churnlib/text.py`, to content. package: its name is a hash of the files.
    modules: the names under which the trainer imported them. foreign: the other modules that the code has imported.
    """

    def __init__(self, files: Mapping[str, bytes], location: Callable[[str], str]) -> None:
        """Describe the files; nothing is imported. location: gives the `__file__` of a path."""
        self.files = dict(files)
        self.package = package_name({path: hashlib.sha256(content).hexdigest() for path, content in files.items()})
        self.modules = frozenset(_module_of(path) for path in files)
        self.foreign: dict[str, str] = {}
        self.location = location

    def own_name(self, module: str) -> str:
        """Return the name under which a module is imported: its own for the trainer's name, others unchanged."""
        return f"{self.package}.{module}" if module.partition(".")[0] in self.modules else module

    def source_of(self, module: str) -> tuple[str, bool] | None:
        """Return the path of a module's source and whether it is a package; None where there is no such module.

        module: the trainer's name; empty for the package that holds all. The path is empty for a package without
        `__init__.py`, which is empty then.
        """
        if not module:
            return "", True
        path = module.replace(".", "/")
        if f"{path}/__init__.py" in self.files:
            return f"{path}/__init__.py", True
        if f"{path}.py" in self.files:
            return f"{path}.py", False
        if any(file.startswith(f"{path}/") for file in self.files):
            return "", True
        return None


def _module_of(path: str) -> str:
    top = path.partition("/")[0]
    return top[: -len(".py")] if top.endswith(".py") else top


def install(files: Mapping[str, bytes], location: Callable[[str], str]) -> OwnCode:
    """Make own code importable, and return it. Nothing is imported yet.

    files: path below `code/` to content, which the caller has compared with the contract and for which there is
    consent. location: gives the `__file__` of a path. The same files are installed once, with their first location.
    """
    code = OwnCode(files, location)
    with _lock:
        if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
            sys.meta_path.insert(0, _Finder())
        return _installed.setdefault(code.package, code)


class _Finder(MetaPathFinder):
    """Finds the modules of installed own code by their own names."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, module = fullname.partition(".")
        code = _installed.get(package)
        found = code.source_of(module) if code is not None else None
        if code is None or found is None:
            return None
        source, is_package = found
        origin = code.location(source) if source else None
        spec = ModuleSpec(fullname, _OwnLoader(code, module), origin=origin, is_package=is_package)
        if is_package:
            spec.submodule_search_locations = []
        return spec


class _OwnLoader(InspectLoader):
    """Runs one module of own code from its bytes in memory."""

    def __init__(self, code: OwnCode, module: str) -> None:
        self._code = code
        self._module = module

    def create_module(self, spec: ModuleSpec) -> None:
        """Leave it to the import system to make the module."""

    def exec_module(self, module: ModuleType) -> None:
        """Run the source in the module, with an `__import__` that knows the version's own modules."""
        source, _ = self._found()
        namespace = module.__dict__
        namespace["__builtins__"] = {**vars(builtins), "__import__": _importer(self._code)}
        if source:
            module.__file__ = self._code.location(source)
            compiled = compile(self._code.files[source], module.__file__, "exec", dont_inherit=True)
            exec(compiled, namespace)  # noqa: S102 - consent was given to these bytes

    def _found(self) -> tuple[str, bool]:
        found = self._code.source_of(self._module)
        assert found is not None
        return found

    def is_package(self, fullname: str) -> bool:
        """Whether the module is a package."""
        return self._found()[1]

    def get_source(self, fullname: str) -> str:
        """Return the source as text, which tracebacks show."""
        source, _ = self._found()
        return decode_source(self._code.files[source]) if source else ""

    def get_data(self, path: str) -> bytes:
        """Return the content of a file of the code by its `__file__`, for `pkgutil.get_data`. Raises OSError."""
        for file, content in self._code.files.items():
            if self._code.location(file) == path:
                return content
        raise FileNotFoundError(path)

    def get_resource_reader(self, fullname: str) -> ResourceReader:
        """Return what `importlib.resources.files` needs: the package's files, from memory."""
        return ResourceReader(Resource(self._code.files, self._module.replace(".", "/")))


def _importer(code: OwnCode) -> Callable[..., ModuleType]:
    """Return the `__import__` of the code's modules."""

    def import_own(
        name: str, globals: Mapping[str, object] | None = None, locals: Mapping[str, object] | None = None,
        fromlist: Sequence[str] | None = (), level: int = 0,
    ) -> ModuleType:  # fmt: skip
        top = name.partition(".")[0]
        if level == 0 and top in code.modules:
            own = f"{code.package}.{name}"
            if fromlist:
                return builtins.__import__(own, globals, locals, fromlist, 0)
            importlib.import_module(own)
            return sys.modules[f"{code.package}.{top}"]
        found = builtins.__import__(name, globals, locals, fromlist or (), level)
        if level == 0 and top not in code.foreign:
            code.foreign[top] = str((globals or {}).get("__file__", ""))
        return found

    return import_own


@contextmanager
def original_names(code: OwnCode, *, hidden: bool = False) -> Iterator[None]:
    """For the length of the context, let the trainer's module names mean this code in the whole process.

    Publish needs it to read a pickle, which names modules as the trainer did. hidden: let the names mean nothing
    instead, so that a check does not pass only because this process can import the trainer's files. Modules of these
    names that were imported before are back afterwards. Only one context at a time.
    """
    with _lock:
        before = _take_out(code.modules)
        finder = _OriginalNames(code, hidden)
        sys.meta_path.insert(0, finder)
        try:
            yield
        finally:
            sys.meta_path.remove(finder)
            _take_out(code.modules)
            sys.modules.update(before)


def _take_out(modules: frozenset[str]) -> dict[str, ModuleType]:
    """Remove these modules and those inside them from `sys.modules`, and return them."""
    names = [name for name in list(sys.modules) if name.partition(".")[0] in modules]
    return {name: sys.modules.pop(name) for name in names}


class _OriginalNames(MetaPathFinder):
    """Finds own code by the trainer's names."""

    def __init__(self, code: OwnCode, hidden: bool) -> None:
        self._code = code
        self._hidden = hidden

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] not in self._code.modules:
            return None
        if self._hidden or self._code.source_of(fullname) is None:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)
        return ModuleSpec(fullname, _Alias(self._code.own_name(fullname)))


class _Alias(Loader):
    """Puts the module of another name into `sys.modules`, as a module that replaces itself there does."""

    def __init__(self, own_name: str) -> None:
        self._own_name = own_name

    def create_module(self, spec: ModuleSpec) -> None:
        """Leave it to the import system to make the module, which is replaced at once."""

    def exec_module(self, module: ModuleType) -> None:
        sys.modules[module.__name__] = importlib.import_module(self._own_name)
