"""Reads from an artifact which scikit-learn, and as far as it shows which other libraries, wrote it.

scikit-learn puts its version into the state of each of its estimators, under a key of its own. pickle, joblib and
cloudpickle write that key and the text after it as they are; skops writes them into its `schema.json`. The bytes are
searched for the pair, so nothing is unpickled, and a file that cannot be loaded here says who wrote it all the same.

Of other libraries less is there. XGBoost and CatBoost write their version into their boosters. numpy shows by the name
of its module whether it is 1 or 2, and LightGBM by its text format whether it is 4 or older. The versions of Python,
scipy and pandas are in no joblib or pickle file; only a training record or MLflow's files have them.
"""

from __future__ import annotations

import bz2
import gzip
import io
import itertools
import lzma
import re
import zipfile
import zlib
from pathlib import Path
from typing import IO, Iterator, Protocol, cast

_KEY = b"_sklearn_version"
_CHUNK_BYTES = 1 << 20
_LONGEST_PAIR = 200
"""Bytes of a key, the opcodes after it and a version: so much of a chunk is searched again with the next one."""
_FRAME = rb"(?:\x95.{8})?"
_MEMOIZE = rb"(?:q.|r.{4}|\x94|\n?p\d+\n)?"
_PICKLED = re.compile(
    _KEY + _FRAME + _MEMOIZE + _FRAME + rb"(?:[\x8cU].|X.{4}|V)(?P<version>\d+\.\d+[0-9A-Za-z.+-]*)", re.DOTALL
)
"""pickle's opcodes for a short, a long or a plain text, with an opcode that memoizes the key in between."""
_IN_SCHEMA = re.compile(rb'"_sklearn_version":\s*\{[^{}]*?"content":\s*"\\"([^"\\]+)\\""')


_LIBRARIES = {
    "numpy": (
        (re.compile(rb"numpy\.core\.(?:multiarray|numeric)"), "1.x"),
        (re.compile(rb"numpy\._core\.(?:multiarray|numeric)"), "2.x"),
    ),
    "xgboost": ((re.compile(rb"\x07version\[#L\x00{7}\x03i(.)i(.)i(.)", re.DOTALL), ""),),
    "lightgbm": (
        (re.compile(rb"tree\nversion=v4\nnum_class="), "4.x"),
        (re.compile(rb"tree\nversion=v3\nnum_class="), "3.x or older"),
    ),
    "catboost": ((re.compile(rb"CatBoost release (\d+\.\d+(?:\.\d+)?)"), ""),),
}  # fmt: skip
"""Library to what shows its version in a pickle; an empty version is made of the groups of the expression."""


class _Readable(Protocol):
    def read1(self, size: int) -> bytes: ...


def sklearn_versions(artifact: Path | bytes) -> list[str]:
    """Return the distinct versions of scikit-learn whose estimators are in a joblib, pickle or skops file, sorted.

    Empty for a file without an estimator of scikit-learn, and for one that is damaged before the first of them.
    joblib's compressed files are read too; lz4 only where lz4 is installed. Raises OSError when it cannot be read.
    """
    file = io.BytesIO(artifact) if isinstance(artifact, bytes) else artifact.open("rb")
    with file:
        if file.read(4) == b"PK\x03\x04":
            return sorted(_in_schema(file))
        file.seek(0)
        return sorted(_in_pickle(_plain_chunks(file)))


def library_versions(artifact: Path | bytes) -> dict[str, str]:
    """Return the versions of other libraries that a joblib or pickle file shows: `{"numpy": "2.x", "xgboost": "3.2"}`.

    A library that is not in the answer may have written the file all the same. Raises OSError when it cannot be read.
    """
    found: dict[str, set[str]] = {}
    file = io.BytesIO(artifact) if isinstance(artifact, bytes) else artifact.open("rb")
    with file:
        rest = b""
        for chunk in _plain_chunks(file):
            text = rest + chunk
            for library, patterns in _LIBRARIES.items():
                for pattern, version in patterns:
                    for match in itertools.islice(pattern.finditer(text), 1):
                        found.setdefault(library, set()).add(version or _of_groups(match))
            rest = text[-_LONGEST_PAIR:]
    return {library: " and ".join(sorted(versions)) for library, versions in sorted(found.items())}


def _of_groups(match: re.Match[bytes]) -> str:
    """Three numbers, each one byte, or a text."""
    groups = match.groups()
    return groups[0].decode("ascii") if len(groups) == 1 else ".".join(str(group[0]) for group in groups)


def _in_schema(file: IO[bytes]) -> set[str]:
    try:
        with zipfile.ZipFile(file) as archive:
            schema = archive.read("schema.json")
    except (zipfile.BadZipFile, KeyError, zlib.error, NotImplementedError):
        return set()
    return {found.decode("ascii", "replace") for found in _IN_SCHEMA.findall(schema)}


def _in_pickle(chunks: Iterator[bytes]) -> set[str]:
    found: set[str] = set()
    rest = b""
    for chunk in chunks:
        text = rest + chunk
        if _KEY in text:
            found.update(_version(match["version"]) for match in _PICKLED.finditer(text))
        rest = text[-_LONGEST_PAIR:]
    return found


def _version(matched: bytes) -> str:
    """The version without the opcodes after it, some of which are letters."""
    exact = re.match(rb"\d+(?:\.\d+)+(?:(?:a|b|rc|\.post|\.dev)\d+)*", matched)
    return (exact.group() if exact else matched).decode("ascii")


def _plain_chunks(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the file's bytes, decompressed if joblib compressed them; those before the damage of a damaged file."""
    start = file.read(5)
    file.seek(0)
    try:
        if start[:1] == b"\x78":
            yield from _inflated(file)
            return
        opened = _decompressing(file, start)
        while True:
            chunk = opened.read1(_CHUNK_BYTES)  # what is there, also before the end of a truncated file
            if not chunk:
                return
            yield chunk
    except (EOFError, OSError, ValueError, zlib.error, lzma.LZMAError):
        return  # who loads the file says what is wrong with it


def _decompressing(file: IO[bytes], start: bytes) -> _Readable:
    if start[:2] == b"\x1f\x8b":
        return gzip.GzipFile(fileobj=file)
    if start[:3] == b"BZh":
        return bz2.open(file)
    if start[:2] == b"\x5d\x00" or start == b"\xfd7zXZ":
        return lzma.open(file)
    if start[:4] == b"\x04\x22\x4d\x18":
        try:
            import lz4.frame
        except ImportError:
            return cast(_Readable, file)
        return lz4.frame.LZ4FrameFile(file)  # type: ignore[no-any-return]
    return cast(_Readable, file)


def _inflated(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the content of a zlib stream. A file that only begins like one is yielded as it is."""
    inflate = zlib.decompressobj()
    while True:
        chunk = file.read(_CHUNK_BYTES)
        if not chunk:
            return
        yield inflate.decompress(chunk)
