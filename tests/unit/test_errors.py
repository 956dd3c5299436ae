"""Errors are data; one table gives each its status."""

from __future__ import annotations

import pytest

from tableside import errors
from tableside.blueprints import BLUEPRINTS
from tableside.web.auth import ACCESS_BY_BLUEPRINT
from tableside.web.errors import PUBLIC, STATUS, body


def subclasses(kind: type[errors.TablesideError]) -> set[type[errors.TablesideError]]:
    return {each for direct in kind.__subclasses__() for each in {direct} | subclasses(direct)}


def test_every_error_has_a_status() -> None:
    """The table names every error there is, and nothing else."""
    assert set(STATUS) == subclasses(errors.TablesideError)


def test_what_is_ours_to_mend_is_a_server_error() -> None:
    """Errors whose text was not written for clients answer 500; the rest are shown."""
    assert all(STATUS[kind] == 500 for kind in set(STATUS) - PUBLIC)


def test_every_face_says_who_may_call_it() -> None:
    """A blueprint declares its access in its own file."""
    assert {blueprint.name for blueprint in BLUEPRINTS} == set(ACCESS_BY_BLUEPRINT)


def test_an_error_object_says_it_twice() -> None:
    """`error` is for inference clients, RFC 9457's members for the rest."""
    assert body(404, "no such model", more=1) == {
        "error": "no such model", "type": "about:blank", "title": "Not Found", "status": 404,
        "detail": "no such model", "more": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (errors.RequestRejected("bad"), "bad"),
        (errors.RequestRejected("bad", (errors.CellError("r[0]", "no"),)), "bad: r[0]: no"),
        (errors.RequestRejected("bad", (errors.CellError("r[0]", "no"),) * 3), "bad: r[0]: no (and 2 more)"),
        (errors.ModelNotFound("gone"), "gone"),
        (errors.ModelNotReady("later"), "later"),
        (errors.Overloaded("full"), "full"),
        (errors.DeadlineExceeded(0.5), "no answer within the deadline of 0.5 s"),
        (errors.InferenceFailed(), "the model failed on this request; the log has the cause under this request id"),
        (
            errors.Unauthorized(),
            "this needs the admin key: send 'Authorization: Bearer KEY' (admin.key in the run folder holds it)",
        ),
    ],
)
def test_an_error_reads_as_one_sentence(error: errors.TablesideError, text: str) -> None:
    """The text of an error is what a client may read."""
    assert str(error) == text
