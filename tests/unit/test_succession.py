"""When an instance is started, counts as ready and is ended; time is a number here."""

from __future__ import annotations

from collections.abc import Mapping

from tableside.deployment.succession import (
    FIRST_RETRY_S,
    FIRST_RETRY_SERVED_S,
    LONGEST_RETRY_SERVED_S,
    SETTLED_S,
    Action,
    Do,
    Phase,
    Seen,
    Succession,
)

STALL_S, GRACE_S = 100.0, 30.0
READY = Seen(True, 2, 2, 10)
LOADING = Seen(True, 0, 2, 1)
ORPHANS = Seen(False, 2, 2, 10)
DEAD = Seen(False)


def make() -> Succession:
    return Succession(STALL_S, GRACE_S)


def does(succession: Succession, now_s: float, seen: Mapping[str, Seen]) -> list[tuple[str, str]]:
    return [(action.do.value, action.name) for action in succession.step(now_s, seen)]


def serving(name: str = "a", now_s: float = 0.0) -> Succession:
    """A succession whose instance serves alone."""
    succession = make()
    succession.started(name, now_s)
    assert does(succession, now_s, {name: READY}) == [("succeeded", name)]
    return succession


def test_the_first_instance_is_started_at_once_and_never_given_up() -> None:
    """While nothing else serves, an instance may load as long as it takes: it answers requests meanwhile."""
    succession = make()
    assert does(succession, 0, {}) == [("start", "")]
    succession.started("a", 0)
    assert does(succession, 10 * STALL_S, {"a": LOADING}) == []
    assert does(succession, 20 * STALL_S, {"a": READY}) == [("succeeded", "a")]
    assert succession.is_quiet


def test_an_earlier_instance_is_ended_only_when_every_worker_of_the_new_one_is_ready() -> None:
    """One of two ready workers is not enough, and an instance whose size is unknown is not ready."""
    succession = serving()
    succession.replace()
    assert does(succession, 50, {"a": READY}) == [("start", "")]
    succession.started("b", 50)
    for half in (Seen(True, 0, 0, 0), Seen(True, 1, 2, 5), Seen(True, 2, 0, 5)):
        assert does(succession, 51, {"a": READY, "b": half}) == []
    assert does(succession, 52, {"a": READY, "b": READY}) == [("succeeded", "b"), ("end", "a")]
    assert not succession.is_quiet
    assert does(succession, 53, {"a": READY, "b": READY}) == []
    assert does(succession, 54, {"b": READY}) == []
    assert succession.is_quiet


def test_an_instance_that_does_not_end_is_killed() -> None:
    """It has its grace, and is killed after it until it is gone."""
    succession = serving("b")
    assert does(succession, 1, {"a": READY, "b": READY}) == [("end", "a")]
    assert does(succession, GRACE_S, {"a": DEAD, "b": READY}) == []
    for now_s in (GRACE_S + 1, GRACE_S + 2):
        assert does(succession, now_s, {"a": DEAD, "b": READY}) == [("kill", "a")]


def test_an_instance_that_ends_before_it_is_ready_leaves_the_earlier_one_alone() -> None:
    """Another is tried after a time that doubles; the earlier one serves on."""
    succession = serving()
    succession.replace()
    now_s, waits = 100.0, []
    assert does(succession, now_s, {"a": READY}) == [("start", "")]
    for attempt in ("b", "c", "d"):
        succession.started(attempt, now_s)
        assert does(succession, now_s, {"a": READY}) == [("failed", attempt)]
        failed_at_s = now_s
        while not does(succession, now_s, {"a": READY}):
            now_s += 1
        waits.append(now_s - failed_at_s)
    assert waits == [FIRST_RETRY_SERVED_S, 2 * FIRST_RETRY_SERVED_S, 4 * FIRST_RETRY_SERVED_S]


def test_the_time_between_attempts_has_a_limit() -> None:
    """After many failures another attempt is made every LONGEST_RETRY_SERVED_S."""
    succession = serving()
    succession.replace()
    now_s = 0.0
    for _ in range(12):
        assert ("start", "") in does(succession, now_s, {"a": READY})
        succession.started("b", now_s)
        assert does(succession, now_s, {"a": READY}) == [("failed", "b")]
        now_s += LONGEST_RETRY_SERVED_S
    assert does(succession, now_s - 1, {"a": READY}) == []


def test_a_new_instance_without_progress_is_given_up_while_another_serves() -> None:
    """Progress of any size starts the time anew."""
    succession = serving()
    succession.replace()
    succession.step(0, {"a": READY})
    succession.started("b", 0)
    assert does(succession, 0, {"a": READY, "b": LOADING}) == []
    assert does(succession, STALL_S - 1, {"a": READY, "b": LOADING._replace(progress=2)}) == []
    assert does(succession, 2 * STALL_S - 2, {"a": READY, "b": LOADING._replace(progress=2)}) == []
    actions = succession.step(2 * STALL_S, {"a": READY, "b": LOADING._replace(progress=2)})
    assert actions[0] == Action(Do.END, "b")
    assert actions[1].do is Do.FAILED
    assert "only 0 of its 2 workers were ready" in actions[1].reason


def test_after_the_death_of_the_master_its_workers_serve_until_the_next_instance_is_ready() -> None:
    """The next one is started at once, and the orphans are ended when it is ready."""
    succession = serving()
    assert does(succession, SETTLED_S + 1, {"a": ORPHANS}) == [("start", "")]
    succession.started("b", SETTLED_S + 1)
    assert does(succession, SETTLED_S + 2, {"a": ORPHANS, "b": LOADING}) == []
    assert does(succession, SETTLED_S + 3, {"a": ORPHANS, "b": READY}) == [("succeeded", "b"), ("end", "a")]


def test_a_master_that_dies_again_and_again_is_not_started_without_a_pause() -> None:
    """One that dies soon after it became ready counts as a failure."""
    succession = serving()
    assert does(succession, 1, {}) == []
    assert does(succession, 1 + FIRST_RETRY_S, {}) == [("start", "")]


def test_a_second_request_gives_up_the_instance_that_is_starting() -> None:
    """Its code may be the one that the operator has just corrected; without another that serves it goes on."""
    succession = serving()
    succession.replace()
    succession.step(0, {"a": READY})
    succession.started("b", 0)
    succession.replace()
    assert does(succession, 1, {"a": READY, "b": LOADING}) == [("end", "b"), ("start", "")]
    cold = make()
    cold.step(0, {})
    cold.started("a", 0)
    cold.replace()
    assert does(cold, 1, {"a": LOADING}) == [("start", "")]


def test_a_keeper_that_ends_gives_up_only_what_starts_beside_others() -> None:
    """In a cold start the instance that loads is the one that serves."""
    succession = make()
    succession.started("b", 0)
    assert succession.abandoned({"b": LOADING}) == ""
    assert succession.abandoned({"a": READY, "b": LOADING}) == "b"
    assert serving().abandoned({"a": READY}) == ""


def test_what_serves_goes_on_after_a_release_failed() -> None:
    """No other attempt is made, and the death of its master is noticed again."""
    succession = serving()
    succession.replace()
    succession.step(0, {"a": READY})
    succession.started("b", 0)
    assert [action.do for action in succession.give_up("it does not serve iris/1", 1)] == [Do.END, Do.FAILED]
    succession.cancel("a")
    assert does(succession, 1000, {"a": READY}) == []
    assert succession.phase is Phase.SERVING
    assert ("start", "") in does(succession, 1001, {"a": ORPHANS})
