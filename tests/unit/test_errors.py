"""Each error has one status, and a text that a client can read."""

from __future__ import annotations

import pytest

from tableside import errors
from tableside.blueprints import BLUEPRINTS
from tableside.web.auth import ACCESS_BY_BLUEPRINT
from tableside.web.error_replies import PUBLIC, STATUS, body


def subclasses(kind: type[errors.TablesideError]) -> set[type[errors.TablesideError]]:
    return {each for direct in kind.__subclasses__() for each in {direct} | subclasses(direct)}


def test_every_error_has_a_status() -> None:
    """The table has every class of error, and nothing else."""
    assert set(STATUS) == subclasses(errors.TablesideError)


def test_errors_that_clients_cannot_mend_have_status_500() -> None:
    """Errors whose text is not written for clients have status 500."""
    assert all(STATUS[kind] == 500 for kind in set(STATUS) - PUBLIC)


def test_every_blueprint_declares_its_access() -> None:
    """Each mounted blueprint has called `allow`, and no other one has."""
    assert {blueprint.name for blueprint in BLUEPRINTS} == set(ACCESS_BY_BLUEPRINT)


def test_an_error_object_has_the_text_twice() -> None:
    """`error` is for inference clients, and `detail` is that of RFC 9457."""
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
        (
            errors.InferenceFailed("the prediction of model m raised TypeError in step 'model'"),
            "the prediction of model m raised TypeError in step 'model'",
        ),
        (errors.TooLarge("server.max_body_bytes", 10), "the body is larger than server.max_body_bytes (10 bytes)"),
        (
            errors.InflatesTooMuch("server.max_inflation", 10),
            "the body takes more than 10 bytes once it is decoded, which is more than server.max_inflation allows a "
            "body of its size",
        ),
        (
            errors.NotAcceptable(("application/json", "text/csv")),
            "the Accept header allows no type that this route can give; there are application/json, text/csv",
        ),
        (errors.UnsupportedBody("no"), "no"),
        (errors.ContractBroken("changed"), "changed"),
        (errors.ClientClosedRequest(), "the client closed the connection"),
        (
            errors.NotFinite(),
            "the model answered a number that is not finite. "
            "Set predict.not_finite to 'null' to get null in place of such numbers",
        ),
        (
            errors.Unauthorized(),
            "the admin key is missing. "
            "Send 'Authorization: Bearer KEY', with the key from the file admin.key in the run folder",
        ),
        (
            errors.Unauthorized(problem="wrong"),
            "the admin key is wrong. "
            "Send 'Authorization: Bearer KEY', with the key from the file admin.key in the run folder",
        ),
        (
            errors.Unauthorized("predict", "expired"),
            "the predict key has expired. Send 'Authorization: Bearer KEY', with a key that the operator made with "
            "`tableside keys add NAME --scope predict`",
        ),
        (
            errors.WrongScope("metrics", "predict"),
            "this key has the scope metrics; this path needs one with the scope predict",
        ),
    ],
)
def test_an_error_has_one_text(error: errors.TablesideError, text: str) -> None:
    """The text of an error says what is wrong and, where a client or operator can act, what to do."""
    assert str(error) == text


def test_a_broken_contract_has_a_class() -> None:
    """Without another class the contract itself is the problem; the class is a label, and so it is a plain string."""
    assert errors.ContractBroken("changed").failure_kind == "contract"
    damaged = errors.ContractBroken("changed", errors.FailureKind.DAMAGED)
    assert f"{damaged.failure_kind}" == "damaged"
