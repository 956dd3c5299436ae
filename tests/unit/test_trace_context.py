"""W3C Trace Context: the caller decides whether a request is traced; without a caller, chance does."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tableside.telemetry.trace_context import Sampler, TraceContext, caller_of

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
ALWAYS, NEVER = Sampler(1.0, lambda path: False), Sampler(0.0, lambda path: False)


def environ(header: str | None = None, state: str | None = None) -> dict[str, Any]:
    found = {"PATH_INFO": "/v1/models/iris:predict"}
    if header is not None:
        found["HTTP_TRACEPARENT"] = header
    if state is not None:
        found["HTTP_TRACESTATE"] = state
    return found


def test_a_sampled_caller_is_followed() -> None:
    """The request belongs to the caller's trace, below its span, and passes its state on, whatever the ratio is."""
    found = NEVER.context_of(environ(f"00-{TRACE}-{SPAN}-01", "congo=t61,rojo=00f0"))
    assert found is not None
    assert (f"{found.trace_id:032x}", f"{found.parent_id:016x}") == (TRACE, SPAN)
    assert found.state == "congo=t61,rojo=00f0"
    assert found.span_id not in (0, found.parent_id)


@pytest.mark.parametrize("flags", ["00", "02", "fe"])
def test_a_caller_that_is_not_sampled_is_followed(flags: str) -> None:
    """Its request is not traced, whatever the ratio is."""
    assert ALWAYS.context_of(environ(f"00-{TRACE}-{SPAN}-{flags}")) is None


INVALID = [
    "", "x", f"00-{TRACE}-{SPAN}", f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01", f"00-{'0' * 32}-{SPAN}-00",
    f"ff-{TRACE}-{SPAN}-01", f"00-{TRACE.upper()}-{SPAN}-01", f"00-{TRACE}-{SPAN}-01-more", f"00-{TRACE}-{SPAN}-0",
    f"00-{TRACE}-{SPAN}-01,00-{TRACE}-{SPAN}-01", f"00-{TRACE[1:]}-{SPAN}-01", "é" * 55,
    "0" * 600,
]  # fmt: skip


@pytest.mark.parametrize("header", INVALID)
def test_an_invalid_header_is_ignored(header: str) -> None:
    """The trace begins here, if chance wants one; the state of the other one is not passed on."""
    assert NEVER.context_of(environ(header, "a=b")) is None
    found = ALWAYS.context_of(environ(header, "a=b"))
    assert found is not None
    assert found.parent_id == 0
    assert found.state == ""
    assert f"{found.trace_id:032x}" not in (TRACE, "0" * 32)


def test_a_later_version_of_the_header_is_read() -> None:
    """W3C wants the first four parts of an unknown version to be used."""
    found = NEVER.context_of(environ(f"cc-{TRACE}-{SPAN}-01-what-the-future-adds"))
    assert found is not None
    assert f"{found.trace_id:032x}" == TRACE
    assert ALWAYS.context_of(environ(f"cc-{TRACE}-{SPAN}-00-more")) is None


def test_an_invalid_state_is_left_out() -> None:
    """The trace goes on without it."""
    found = NEVER.context_of(environ(f"00-{TRACE}-{SPAN}-01", "no state, = at all"))
    assert found is not None
    assert found.state == ""


@given(
    st.one_of(
        st.from_regex(r"(00|cc|ff)-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", fullmatch=True),
        st.from_regex(r"00-0{31}[01]-0{15}[01]-0[0-3]\n?", fullmatch=True),
        st.text("0123456789abcdef-\n ", min_size=50, max_size=60),
    )
)
@example(f"00-{TRACE}-{SPAN}-00")
def test_the_short_way_agrees_with_opentelemetry(header: str) -> None:
    """What is recognized without OpenTelemetry's propagator is what that one reads as a caller that is not sampled."""
    caller = caller_of(environ(header))
    for sampler in (ALWAYS, NEVER):
        found = sampler.context_of(environ(header))
        if caller is not None:
            assert (found is not None) == caller.trace_flags.sampled
        else:
            assert (found is not None) == (sampler is ALWAYS)


def test_the_ratio_is_a_share_of_the_requests() -> None:
    """Without a caller a quarter of the requests is traced, each under an id of its own."""
    sampler = Sampler(0.25, lambda path: False)
    found = [context for context in (sampler.context_of(environ()) for _ in range(4000)) if context]
    assert 800 < len(found) < 1200
    assert len({context.trace_id for context in found}) == len({context.span_id for context in found}) == len(found)


def test_excluded_paths_are_traced_for_callers_only() -> None:
    """Health probes are not traced by chance, but they are if their caller wants it."""
    sampler = Sampler(1.0, lambda path: path == "/v2/health/ready")
    probe = {"PATH_INFO": "/v2/health/ready"}
    assert sampler.context_of(probe) is None
    assert sampler.context_of({**probe, "HTTP_TRACEPARENT": f"00-{TRACE}-{SPAN}-01"}) is not None


def test_the_answers_header_names_the_span() -> None:
    """It has the form of `traceparent`, with leading zeros."""
    assert TraceContext(1, 2).response_header() == ("traceresponse", f"00-{1:032x}-{2:016x}-01")
