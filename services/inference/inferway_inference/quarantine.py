"""Remembers what was at the runner when it crashed, so that nobody is let in who crashed it twice. Pure.

    stranger ──► in a batch that crashed ──► suspect: runs alone ──► answered: forgotten
        └──────► alone, and crashed ───────► suspect ──────────────► crashed: quarantined, refused at the door

A request is known by the digest of what it asks to compute: repeated by another gateway or another caller it is the
same one. Digests are only taken while somebody is known.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from hashlib import blake2b

from inferway.errors import Quarantined
from inferway.names import parse_version
from inferway_inference.work import Request

MAX_KNOWN = 1024
"""The longest unseen are forgotten."""
KILLS = 2


class Quarantine:
    """Of one version; outlives its runners."""

    def __init__(self) -> None:
        """Nobody is known."""
        self._kills: OrderedDict[bytes, int] = OrderedDict()

    def admit(self, request: Request) -> bool:
        """Whether the request must run alone; raises Quarantined."""
        if not self._kills:
            return False
        name = digest(request)
        kills = self._kills.get(name, 0)
        if not kills:
            return False
        self._kills.move_to_end(name)
        if kills >= KILLS:
            model, number = parse_version(request.version)
            raise Quarantined(
                "a request with these inputs ended the model's process twice and is not computed again",
                model=model,
                version=number,
            )
        return True

    def crashed(self, requests: Iterable[Request], *, alone: bool) -> None:
        """The runner ended while it held these; `alone` says that nothing else can have been the cause."""
        for request in requests:
            name = digest(request)
            known = self._kills.pop(name, 0)
            self._kills[name] = known + 1 if alone else max(known, 1)
            if len(self._kills) > MAX_KNOWN:
                self._kills.popitem(last=False)

    def cleared(self, request: Request) -> None:
        """A suspect was computed and the runner lives."""
        self._kills.pop(digest(request), None)


def digest(request: Request) -> bytes:
    """Equal for requests that ask the same."""
    content = blake2b(repr((request.signature_name, request.parameters)).encode(), digest_size=16)
    for tensor in request.inputs:
        content.update(repr(tensor.shape).encode())
        content.update(tensor.raw)
    return content.digest()
