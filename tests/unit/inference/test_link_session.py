"""The worker's end of a link: what it answers by itself."""

from __future__ import annotations

from typing import Any

import pytest

from inferway.errors import InvalidBatch, StreamProtocolViolated
from inferway_inference.link import MAX_HELD_VERSIONS, MAX_ROWS, LinkSession
from inferway_inference.work import Request
from tests.unit.inference.requests import admitted


class IdleWorker:
    """Takes requests and has no models."""

    draining = False

    def __init__(self) -> None:
        self.submitted: list[Request] = []
        self.held: dict[object, frozenset[str]] = {}

    def listen(self, changed: object) -> Any:
        """Nothing ever changes."""
        return lambda: None

    def ready(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def submit(self, requests: list[Request]) -> None:
        """Keeps them."""
        self.submitted.extend(requests)

    def hold(self, link: object, versions: frozenset[str]) -> None:
        """Notes them."""
        self.held[link] = versions

    def link_lost(self, link: object) -> None:
        """Forgets them."""
        self.held.pop(link, None)


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


def test_each_word_of_what_streams_need_replaces_the_one_before_and_the_end_of_the_link_is_told() -> None:
    """A version that is held for ever would keep its memory for nobody."""
    worker: Any = IdleWorker()
    with LinkSession(worker, "g") as session:
        session.hold(["models/m/versions/1", "models/m/versions/2"])
        session.hold(["models/m/versions/2", "models/unknown/versions/9"])
        held = dict(worker.held)

    assert held == {session: {"models/m/versions/2", "models/unknown/versions/9"}}
    assert worker.held == {}


@pytest.mark.parametrize(
    "versions",
    [[f"models/m/versions/{number}" for number in range(1, MAX_HELD_VERSIONS + 2)], ["models/m"], [""]],
    ids=["too many", "no version", "empty"],
)
def test_what_streams_need_is_names_of_versions_and_not_too_many(versions: list[str]) -> None:
    """What a gateway says is kept for as long as its link lives, so it must be small and make sense."""
    worker: Any = IdleWorker()
    session = LinkSession(worker, "g")

    with pytest.raises(StreamProtocolViolated):
        session.hold(versions)
    assert worker.held == {}
