"""Answers a mutation's request once, however often it comes: the servicers' way into the ledger."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable
from typing import Protocol, TypeVar

from google.protobuf.message import Message

from inferway.errors import InvalidField
from inferway_registry.ledger import Call, Ledger, Operation

T = TypeVar("T")
R = TypeVar("R", bound=Message)

ANONYMOUS = "anonymous"
"""The principal of callers, until they are authenticated."""


class MutationRequest(Protocol):
    """A request message of a mutation."""

    @property
    def request_id(self) -> str:
        """A UUID, or empty."""

    def SerializeToString(self, *, deterministic: bool = ...) -> bytes:  # noqa: N802 - protobuf's name
        """The message's bytes."""


def call_of(request: MutationRequest) -> Call:
    """What the ledger must know of a request; raises InvalidField for a request id that is no UUID."""
    method = type(request).__name__.removesuffix("Request")
    if not request.request_id:
        return Call(ANONYMOUS, method)
    try:
        request_id = str(uuid.UUID(request.request_id))
    except ValueError as error:
        raise InvalidField.at("request_id", "expected a UUID") from error
    content = method.encode() + b"\n" + request.SerializeToString(deterministic=True)
    return Call(ANONYMOUS, method, request_id, hashlib.sha256(content).hexdigest())


async def once(
    ledger: Ledger, request: MutationRequest, operation: Operation[T], respond: Callable[[T], R], response: type[R]
) -> R:
    """Runs the mutation and returns its response, or the response that the same request had before."""
    answer = await ledger.answer_once(call_of(request), operation, lambda result: respond(result).SerializeToString())
    return response.FromString(answer)
