"""Suspects: requests that a worker had in hand when it died, and what follows for them. Everything here is pure.

A digest is a suspect after one death; the request then runs alone. If its worker dies again, the digest is quarantined
for a time. A success alone clears it. Three digests of one model that are quarantined within a minute stop the model.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from tableside.process.hand_file import Entry, State

MODEL_DIGESTS = 3
MODEL_WINDOW_S = 60.0
MAX_SUSPECTS = 500
"""The oldest are forgotten: an attacker that makes more of them has stopped its model long before."""


class Suspect(msgspec.Struct, frozen=True):
    """A request that a worker had in hand when it died. Moments are seconds since 1970.

    is_quarantined: whether the worker died while the request was alone. request_id: the one that was in hand.
    """

    digest: str
    model: str
    request_id: str
    since_s: float
    until_s: float
    is_quarantined: bool = False


class StoppedModel(msgspec.Struct, frozen=True):
    """A model that answers 503 until `until_s`, or until a generation starts it again."""

    name: str
    until_s: float


class Ledger(msgspec.Struct, frozen=True):
    """All suspects and stopped models of a host, and the newest generation that a worker serves."""

    suspects: tuple[Suspect, ...] = ()
    models: tuple[StoppedModel, ...] = ()
    generation: int = 0


def parse(text: bytes) -> Ledger:
    """Read a ledger from its text. An empty or damaged text is an empty ledger."""
    try:
        return msgspec.msgpack.decode(text, type=Ledger)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Ledger()


def encode(ledger: Ledger) -> bytes:
    """Return the text of a ledger."""
    return msgspec.msgpack.encode(ledger)


def model_name(model: str) -> str:
    """Return the name in `name/version`."""
    return model.partition("/")[0]


def current(ledger: Ledger, now_s: float) -> Ledger:
    """Return the ledger without what is over."""
    return Ledger(
        tuple(each for each in ledger.suspects if now_s < each.until_s)[-MAX_SUSPECTS:],
        tuple(each for each in ledger.models if now_s < each.until_s),
        ledger.generation,
    )


def blame(ledger: Ledger, entries: Sequence[Entry], now_s: float, keep_s: float) -> tuple[Ledger, list[Suspect]]:
    """Return the ledger after the death of a worker with these entries, and what it says about them.

    Requests that waited in a queue are not blamed. keep_s: how long a suspect is remembered, and a model stopped.
    """
    ledger = current(ledger, now_s)
    blamed = [
        Suspect(entry.digest, entry.model, entry.request_id, now_s, now_s + keep_s, entry.alone)
        for entry in entries
        if entry.state in (State.COMPUTING, State.LEFT)
    ]
    known = {each.digest: each for each in ledger.suspects}
    for suspect in blamed:
        before = known.pop(suspect.digest, None)
        known[suspect.digest] = before if before is not None and before.is_quarantined else suspect
    suspects = tuple(known.values())
    stopped = {each.name: each for each in ledger.models}
    for name in {model_name(each.model) for each in blamed if each.is_quarantined} - stopped.keys():
        recent = [
            each
            for each in suspects
            if each.is_quarantined and model_name(each.model) == name and now_s - each.since_s <= MODEL_WINDOW_S
        ]
        if len(recent) >= MODEL_DIGESTS:
            stopped[name] = StoppedModel(name, now_s + keep_s)
    return Ledger(suspects, tuple(stopped.values()), ledger.generation), blamed


def cleared(ledger: Ledger, digest: str) -> Ledger:
    """Return the ledger without a suspect: it was answered alone. A quarantined digest stays."""
    kept = tuple(each for each in ledger.suspects if each.digest != digest or each.is_quarantined)
    return Ledger(kept, ledger.models, ledger.generation)


def served(ledger: Ledger, generation: int, starts: Collection[str] | None) -> Ledger:
    """Return the ledger after a worker has begun to serve this generation.

    starts: the stopped models that a newer generation starts again, because it is about them; None for all.
    """
    if generation <= ledger.generation:
        return ledger
    models = () if starts is None else tuple(each for each in ledger.models if each.name not in starts)
    return Ledger(ledger.suspects, models, generation)
