"""The access keys as one worker knows them. A change of the keys file counts within a second, without a restart."""

from __future__ import annotations

import time
from collections.abc import Callable

from tableside.access_keys import AccessKey, KeysFile, match
from tableside.errors import KeysFailed
from tableside.process.offload import run_native
from tableside.telemetry import logs

CHECK_EVERY_S = 1.0
UNKNOWN_EVERY_S = 0.05
"""How often a key that is not known makes the file be looked at: it may have been made just now."""
log = logs.get_logger("keys")


class Keyring:
    """The keys of a file, read when the file has changed. A file that cannot be used counts as one without keys."""

    def __init__(self, file: KeysFile, now_s: Callable[[], float] = time.monotonic) -> None:
        """now_s: the clock by which the file is looked at once a second; tests replace it."""
        self._file, self._now_s = file, now_s
        self._stamp, self._keys, problem = self._look(None)
        self._looked_at_s, self._is_looking = now_s(), False
        self._report(problem)

    def find(self, token: str) -> AccessKey | None:
        """The key that this text is, expired or not; None if it is no key.

        Looks at the file at most once a second, in a native thread, because its disk may be slow; for a key that is not
        known every UNKNOWN_EVERY_S. Requests that arrive while one looks are checked with the keys from before.
        """
        self._refresh_after(CHECK_EVERY_S)
        found = match(self._keys, token)
        if found is None and self._refresh_after(UNKNOWN_EVERY_S):
            found = match(self._keys, token)
        return found

    def all(self) -> tuple[AccessKey, ...]:
        """The keys of the file, expired ones too. Looks at the file as `find` does."""
        self._refresh_after(CHECK_EVERY_S)
        return self._keys

    def _refresh_after(self, pause_s: float) -> bool:
        """Look at the file if the last look is so long ago. Return whether it was."""
        if self._now_s() - self._looked_at_s < pause_s or self._is_looking:
            return False
        self._refresh()
        return True

    def _refresh(self) -> None:
        self._is_looking = True
        try:
            stamp, keys, problem = run_native(lambda: self._look(self._stamp))
        finally:
            self._is_looking, self._looked_at_s = False, self._now_s()
        if stamp != self._stamp:
            self._stamp, self._keys = stamp, keys
            self._report(problem)

    def _look(self, known: tuple[int, ...] | None) -> tuple[tuple[int, ...], tuple[AccessKey, ...], str]:
        """The file's stamp, and if it is not the known one, its keys and what is wrong with it."""
        stamp = self._file.stamp()
        if stamp == known:
            return stamp, (), ""
        try:
            return stamp, self._file.read(), ""
        except KeysFailed as problem:
            return stamp, (), str(problem)

    def _report(self, problem: str) -> None:
        if problem:
            log.error("keys_unusable", problem=problem)
