"""The worker's end of a link: what it answers by itself."""

from __future__ import annotations

from typing import Any

import pytest

from inferway.errors import InvalidBatch
from inferway_inference.link import MAX_ROWS, LinkSession
from inferway_inference.work import Request
from tests.unit.inference.requests import admitted


class IdleWorker:
    """Takes requests and has no models."""

    draining = False

    def __init__(self) -> None:
        self.submitted: list[Request] = []

    def listen(self, changed: object) -> Any:
        """Nothing ever changes."""
        return lambda: None

    def ready(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def submit(self, requests: list[Request]) -> None:
        """Keeps them."""
        self.submitted.extend(requests)


@pytest.mark.parametrize("rows", [2**63 - 1, MAX_ROWS + 1, -1])
def test_a_claim_of_impossible_rows_is_refused_before_it_reaches_the_books_of_credits(rows: int) -> None:
    """Given back as credits they would not fit a message: the link would break, and all that is on it be lost."""
    worker: Any = IdleWorker()
    session = LinkSession(worker, "g")
    bad, good = admitted(1, rows, reply=session.reply), admitted(2, MAX_ROWS, reply=session.reply)
    session.submit([bad, good])
    [(answered, answer)] = session.take().answers

    assert worker.submitted == [good]
    assert answered is bad
    assert isinstance(answer.error, InvalidBatch)
