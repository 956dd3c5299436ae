"""Data files of own code, for `importlib.resources`: they are read from memory, as their modules are."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import IO, Any


class Resource:
    """A file or folder of own code, with the methods of `importlib.resources.abc.Traversable`. path: below `code/`."""

    def __init__(self, files: Mapping[str, bytes], path: str) -> None:
        self._files = files
        self._path = path

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self._path.rpartition("/")[2]

    def is_file(self) -> bool:
        """Whether it is a file."""
        return self._path in self._files

    def is_dir(self) -> bool:
        """Whether it is a folder with a file in it."""
        return any(file.startswith(self._below) for file in self._files)

    @property
    def _below(self) -> str:
        return f"{self._path}/" if self._path else ""

    def iterdir(self) -> Iterator[Resource]:
        """Yield what the folder holds."""
        inside = {file[len(self._below) :].partition("/")[0] for file in self._files if file.startswith(self._below)}
        for name in sorted(inside):
            yield Resource(self._files, f"{self._below}{name}")

    def joinpath(self, *descendants: str) -> Resource:
        """Return a file or folder below this one, whether or not it exists."""
        names = [part for each in descendants for part in str(each).split("/") if part not in ("", ".")]
        return Resource(self._files, "/".join(filter(None, [self._path, *names])))

    def __truediv__(self, child: str) -> Resource:
        return self.joinpath(child)

    def read_bytes(self) -> bytes:
        """Return the file's content. Raises FileNotFoundError."""
        if self._path not in self._files:
            raise FileNotFoundError(self._path)
        return self._files[self._path]

    def read_text(self, encoding: str | None = None, errors: str | None = None) -> str:
        """Return the file's content as text. Raises FileNotFoundError, UnicodeDecodeError."""
        return self.read_bytes().decode(encoding or "utf-8", errors or "strict")

    def open(self, mode: str = "r", *args: Any, **options: Any) -> IO[Any]:
        """Open the file for reading, as `pathlib.Path.open` does. Raises FileNotFoundError."""
        content = io.BytesIO(self.read_bytes())
        return content if "b" in mode else io.TextIOWrapper(content, *args, **options)


class ResourceReader:
    """What a loader gives to `importlib.resources.files`."""

    def __init__(self, root: Resource) -> None:
        self._root = root

    def files(self) -> Resource:
        """Return the package's folder."""
        return self._root
