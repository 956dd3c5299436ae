"""Random changes of bytes, of JSON and of skops files; the same for the same state of the random numbers."""

from __future__ import annotations

import io
import json
import random
import struct
import zipfile
from typing import Any

NUMBERS = (
    0,
    1,
    -1,
    127,
    128,
    255,
    65535,
    2**31 - 1,
    -(2**31),
    2**31,
    2**40,
    2**63 - 1,
    -(2**63),
    2**64,
    10**400,
    1e308,
    -0.5,
)
VALUES: tuple[Any, ...] = (
    None,
    True,
    "",
    "x",
    "../../etc/passwd",
    "\x00",
    [],
    {},
    [[]],
    {"a": []},
    [0] * 50_000,
    "x" * 100_000,
)
SCHEMA = "schema.json"


def in_bytes(content: bytes, chance: random.Random) -> bytes:
    """Change, cut, repeat or put in one to four pieces."""
    changed = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        at, size = chance.randrange(len(changed) + 1), chance.choice((1, 1, 2, 4, 8, 64))
        match chance.randrange(7):
            case 0:
                changed[at : at + 1] = bytes((chance.randrange(256),))
            case 1:
                changed[at : at + size] = chance.randbytes(size)
            case 2:
                del changed[at : at + size]
            case 3:
                changed[at:at] = changed[at : at + size] * chance.choice((1, 2, 1000))
            case 4:
                number = chance.choice([each for each in NUMBERS if isinstance(each, int) and abs(each) < 2**63])
                packed = struct.pack("<q", number)[: chance.choice((1, 2, 4, 8))]
                changed[at : at + len(packed)] = packed
            case 5:
                changed[at:at] = chance.choice((b"0", b"[", b"{", b'"', b",", b"\n", b"\x00", b"\xff")) * chance.choice(
                    (1, 3000)
                )
            case _:
                del changed[at:]
    return bytes(changed)


def in_json(text: bytes, chance: random.Random) -> bytes:
    """Replace, remove or repeat the value at one to three places."""
    content = json.loads(text)
    for _ in range(chance.randint(1, 3)):
        places = list(_places(content))
        if not places:
            break
        holder, key = chance.choice(places)
        match chance.randrange(5):
            case 0:
                holder[key] = chance.choice(NUMBERS)
            case 1:
                holder[key] = chance.choice(VALUES)
            case 2:
                del holder[key]
            case 3:
                other, name = chance.choice(places)
                # A copy, because a value inside of itself has no end.
                holder[key] = json.loads(json.dumps(other[name])) if _has(other, name) else None
            case _ if isinstance(holder[key], (int, float)) and abs(holder[key]) < 2**63:
                holder[key] = holder[key] + chance.choice((-1, 1))
            case _:
                holder[key] = str(holder[key])[:1000]
    return json.dumps(content).encode()


def _has(holder: Any, key: Any) -> bool:
    return key in holder if isinstance(holder, dict) else key < len(holder)


def _places(content: Any) -> Any:
    waiting = [content]
    while waiting:
        holder = waiting.pop()
        pairs = list(holder.items() if isinstance(holder, dict) else enumerate(holder))
        yield from ((holder, key) for key, _ in pairs)
        waiting += [value for _, value in pairs if isinstance(value, (dict, list))]


def in_skops(content: bytes, chance: random.Random) -> bytes:
    """Change the schema, or the bytes of one array, of a skops file; its zip is whole."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = SCHEMA if chance.random() < 0.6 else chance.choice(sorted(members))
    members[name] = in_json(members[name], chance) if name == SCHEMA else in_bytes(members[name], chance)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", chance.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for each, member in members.items():
            archive.writestr(each, member)
    return packed.getvalue()
