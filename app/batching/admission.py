"""Whether a new request is admitted to a model's queue. Pure: the current time is an argument."""

from __future__ import annotations

from tableside.errors import Overloaded, WaitedTooLong

USABLE_DEADLINE_SHARE = 0.75
"""The share of a request's remaining time that may be planned with. The rest covers errors of the estimate."""


def too_late(now_s: float, expected_s: float, deadline_at_s: float) -> bool:
    """Whether work of `expected_s` seconds does not fit into the usable share of the time until the deadline."""
    return expected_s > USABLE_DEADLINE_SHARE * (deadline_at_s - now_s)


def refusal(
    now_s: float, deadline_at_s: float, queued_rows: int, max_queue_rows: int, wait_s: float | None, own_s: float,
    waited_s: float = 0.0,
) -> Overloaded | WaitedTooLong | None:  # fmt: skip
    """Return why a new request is refused; None admits it.

    queued_rows: rows that wait already. A request is refused when they are `max_queue_rows`, not when its own rows
    would make them more: a large request is not refused because of another one. wait_s: the expected seconds before the
    request's call; None if nothing is ahead. own_s: the expected seconds of the call itself. waited_s: seconds that the
    request waited before this process read it.

    A request with nothing ahead that did not wait is always admitted: a wrong estimate would otherwise block the model
    for ever, because only a call corrects it. Any other request needs `wait_s + own_s` to fit into
    USABLE_DEADLINE_SHARE of its time. If it would have fitted without `waited_s`, the server is the cause, and the
    error says so.
    """
    if queued_rows >= max_queue_rows:
        limit = f"predict.max_queue_rows is {max_queue_rows}"
        return Overloaded(
            f"the queue of this model is full: it holds {queued_rows} rows and {limit}; send the request again later"
        )
    needed_s = (wait_s or 0.0) + own_s
    if (wait_s is None and not waited_s) or not too_late(now_s, needed_s, deadline_at_s):
        return None
    remaining_s = max(0.0, deadline_at_s - now_s)
    if waited_s and not too_late(now_s - waited_s, needed_s, deadline_at_s):
        return waited_too_long(waited_s, remaining_s)
    return Overloaded(
        f"the answer would take about {needed_s:.2g} s and the request has {remaining_s:.2g} s left; "
        "send it again later, or with a longer deadline"
    )


def waited_too_long(waited_s: float, remaining_s: float) -> WaitedTooLong:
    """Return the error of a request whose time went by before this process read it."""
    return WaitedTooLong(
        f"the request waited {waited_s:.2g} s until a worker read it and has {max(0.0, remaining_s):.2g} s left: the "
        "server was busy or restarting; send it again"
    )
