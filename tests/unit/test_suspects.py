"""What follows for the requests of a worker that has died. Pure decisions: time is a value."""

from __future__ import annotations

from tableside.process import suspects
from tableside.process.hand_file import Entry, State
from tableside.process.suspects import Ledger

KEEP_S = 600.0


def entry(digest: str, state: State = State.COMPUTING, *, alone: bool = False, model: str = "iris/1") -> Entry:
    return Entry(state, alone, 0.0, digest, f"id-{digest}", model)


def quarantine(ledger: Ledger, digest: str, now_s: float, model: str = "iris/1") -> Ledger:
    for alone in (False, True):
        ledger, _ = suspects.blame(ledger, [entry(digest, alone=alone, model=model)], now_s, KEEP_S)
    return ledger


def test_only_requests_that_were_computed_are_suspects() -> None:
    """A request that waited in a queue did nothing when its worker died."""
    entries = [entry("a"), entry("b", State.WAITING), entry("c", State.LEFT)]
    ledger, blamed = suspects.blame(Ledger(), entries, 100.0, KEEP_S)
    assert [each.digest for each in blamed] == ["a", "c"]
    assert [(each.digest, each.is_quarantined, each.until_s) for each in ledger.suspects] == [
        ("a", False, 700.0),
        ("c", False, 700.0),
    ]


def test_a_second_death_counts_only_alone() -> None:
    """A request that died twice beside others is still a suspect; alone, it is quarantined, and stays so."""
    ledger = Ledger()
    for _ in range(3):
        ledger, _ = suspects.blame(ledger, [entry("a"), entry("b")], 100.0, KEEP_S)
    assert not any(each.is_quarantined for each in ledger.suspects)
    ledger, blamed = suspects.blame(ledger, [entry("a", alone=True)], 101.0, KEEP_S)
    assert [each.is_quarantined for each in blamed] == [True]
    ledger, _ = suspects.blame(ledger, [entry("a")], 102.0, KEEP_S)
    assert {each.digest: each.is_quarantined for each in ledger.suspects} == {"a": True, "b": False}


def test_a_success_alone_clears_a_suspect_and_no_quarantine() -> None:
    """A neighbour of the killer is cleared by its answer; the killer is not, whatever comes later."""
    ledger, _ = suspects.blame(Ledger(), [entry("a"), entry("b")], 100.0, KEEP_S)
    ledger = quarantine(ledger, "a", 101.0)
    for digest in ("a", "b"):
        ledger = suspects.cleared(ledger, digest)
    assert [each.digest for each in ledger.suspects] == ["a"]


def test_suspects_and_stopped_models_end_after_a_time() -> None:
    """At `until_s` they are over."""
    ledger = Ledger()
    for digest in "abc":
        ledger = quarantine(ledger, digest, 100.0)
    assert [each.name for each in suspects.current(ledger, 699.0).models] == ["iris"]
    assert suspects.current(ledger, 700.0) == Ledger()


def test_three_digests_within_a_minute_stop_the_model() -> None:
    """Two do not, three of two models do not, and three in more than a minute do not."""
    two = quarantine(quarantine(Ledger(), "a", 100.0), "b", 101.0)
    assert not two.models
    assert not quarantine(two, "c", 102.0, model="wine/1").models
    assert not quarantine(two, "c", 161.0).models
    assert [each.name for each in quarantine(two, "c", 102.0, model="iris/2").models] == ["iris"]


def test_a_newer_generation_starts_the_stopped_models_that_it_is_about() -> None:
    """A reload starts all; a change of another model, or a worker that begins to serve the same generation, none."""
    ledger = suspects.served(Ledger(), 7, None)
    for digest in "abc":
        ledger = quarantine(ledger, digest, 100.0)
    assert [each.name for each in ledger.models] == ["iris"]
    assert suspects.served(ledger, 7, None) is ledger
    assert suspects.served(ledger, 8, ("wine",)).models == ledger.models
    assert suspects.served(ledger, 8, ("wine",)).generation == 8
    assert not suspects.served(ledger, 8, ("iris",)).models
    assert not suspects.served(ledger, 8, None).models
    assert len(suspects.served(ledger, 8, None).suspects) == 3


def test_a_ledger_is_bounded_and_survives_damage() -> None:
    """The oldest suspects are forgotten; a text that is none is an empty ledger."""
    ledger = Ledger()
    for number in range(suspects.MAX_SUSPECTS + 20):
        ledger, _ = suspects.blame(ledger, [entry(f"{number:032x}")], 100.0, KEEP_S)
    assert len(ledger.suspects) <= suspects.MAX_SUSPECTS + 1
    assert ledger.suspects[-1].digest == f"{suspects.MAX_SUSPECTS + 19:032x}"
    assert suspects.parse(suspects.encode(ledger)) == ledger
    for text in (b"", b"\xff", b"\x93\x01\x02", suspects.encode(ledger)[:-3]):
        assert suspects.parse(text) == Ledger()
