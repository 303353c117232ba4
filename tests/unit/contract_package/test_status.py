"""Errors travel as google.rpc.Status and come back as what they were."""

from __future__ import annotations

import pytest
from google.rpc import code_pb2
from google.rpc.status_pb2 import Status

from inferway import errors
from inferway.status import from_status, to_status


@pytest.mark.parametrize("kind", errors.BY_REASON.values(), ids=errors.BY_REASON)
def test_every_error_survives_the_wire(kind: type[errors.InferwayError]) -> None:
    """A reason that is lost on the way cannot be acted upon."""
    violation = errors.FieldViolation("inputs[0].shape", "has 3 dimensions, expected 2")
    error = kind("a message", violations=(violation,), model="digits", version=3)

    back = from_status(Status.FromString(to_status(error).SerializeToString()))

    assert type(back) is kind
    assert (back.message, back.violations) == (error.message, error.violations)
    assert back.metadata == {"model": "digits", "version": "3"}
    assert back.retry_after_seconds == pytest.approx(error.retry_after_seconds) if error.retryable else True
    assert back.retryable == error.retryable


@pytest.mark.parametrize("code", [value for value in code_pb2.Code.values() if value])
def test_a_foreign_status_becomes_the_branch_of_its_code(code: int) -> None:
    """A proxy's error is still an error of a known kind."""
    error = from_status(Status(code=code, message="from elsewhere"))

    name = code_pb2.Code.Name(code)
    assert error.code == (name if name in errors.BY_CODE else "INTERNAL")
    assert error.message == "from elsewhere"


def test_a_reason_from_the_future_is_understood_by_its_code() -> None:
    """An old client must not break on a new server."""
    status = to_status(errors.QueueFull("full"))
    status.details[0].value = status.details[0].value.replace(b"QUEUE_FULL", b"QUEUE_TALL")

    assert type(from_status(status)) is errors.Overloaded
