"""Sessions of the status page: files in the run folder, so that every worker knows them and a restart keeps them.

The cookie has a random token, and the file is named after its SHA-256: whoever reads the folder cannot make a cookie of
it. A session counts while the key that opened it does. It opens the page and nothing else: no route of an API reads
the cookie.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from contextlib import suppress
from pathlib import Path

import msgspec

from tableside import private_files

FOLDER = "sessions"
"""In the run folder."""
LIFE_S = 8 * 3600
"""How long a session lasts."""
MOST = 100
"""Sessions of one host. The earliest one ends when another is begun."""
_TOKEN_BYTES = 32
_DRAFT_S = 60
"""A file that is being written is younger."""
_MAX_TOKEN_CHARACTERS = 64


class Session(msgspec.Struct, frozen=True):
    """Who is signed in. key: the name of the key. sha256: its hash. ends_at_s: when the session ends, since 1970."""

    key: str
    sha256: str
    ends_at_s: float


def begin(run_dir: Path, key: str, sha256: str, now_s: float) -> str:
    """Begin a session and return its token. now_s: seconds since 1970. Raises OSError if it cannot be written."""
    folder = run_dir / FOLDER
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _make_room(folder, now_s)
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    private_files.write(_file(run_dir, token), msgspec.json.encode(Session(key, sha256, now_s + LIFE_S)))
    return token


def find(run_dir: Path, token: str, now_s: float) -> Session | None:
    """Return the session of a token; None if there is none or it has ended. Its key may have been revoked meanwhile."""
    if not 0 < len(token) <= _MAX_TOKEN_CHARACTERS:
        return None
    try:
        found = msgspec.json.decode(_file(run_dir, token).read_bytes(), type=Session)
    except (OSError, msgspec.MsgspecError):
        return None
    return found if now_s < found.ends_at_s else None


def end(run_dir: Path, token: str) -> None:
    """End a session. Raises OSError if its file cannot be removed."""
    _file(run_dir, token).unlink(missing_ok=True)


def form_token(secret: str) -> str:
    """Return what a form has to send back, so that no page of another site can send it: it cannot read the cookie.

    secret: the value of the cookie.
    """
    return hashlib.sha256(b"form of the status page " + secret.encode()).hexdigest()


def is_form_token(sent: str, secret: str) -> bool:
    """Return whether a form has sent back what it was given. An empty secret allows nothing."""
    return bool(secret) and hmac.compare_digest(sent.encode(), form_token(secret).encode())


def _file(run_dir: Path, token: str) -> Path:
    return run_dir / FOLDER / f"{hashlib.sha256(token.encode()).hexdigest()}.json"


def _make_room(folder: Path, now_s: float) -> None:
    """Remove the sessions that have ended, the earliest ones beyond MOST - 1, and drafts of killed workers."""
    for draft in folder.glob("*.new"):
        with suppress(OSError):
            if draft.stat().st_mtime < now_s - _DRAFT_S:
                draft.unlink()
    found: list[tuple[float, Path]] = []
    for path in folder.glob("*.json"):
        with suppress(OSError):
            found.append((path.stat().st_mtime, path))
    found.sort()
    kept = found[-(MOST - 1) :]
    for began_s, path in found:
        if began_s < now_s - LIFE_S or (began_s, path) not in kept:
            with suppress(OSError):
                path.unlink()
