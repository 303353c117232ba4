"""Remembers what crashed runners, so that one request does not walk through the fleet. Pure.

    stranger ──► aboard when a runner crashed ──► suspect: repeated alone ──► answered: forgotten
                                                              └─────────────► crashed again: convicted, refused

A worker's quarantine sees the crashes of that worker alone; this one sees those of all. Requests are known by what
they ask to compute, and fingerprints are only taken while somebody is known.

What was aboard together would crash the next runner together, and then nobody could tell who did it. So of each
version's suspects one is out at a time. For the same reason a crash counts again only for requests that were sent as
suspects, and after the crash before: callers that ask the same at the same time, or waited for a worker meanwhile, may
lose two runners at once through no fault of theirs.
"""

from __future__ import annotations

from collections import OrderedDict

from xxhash import xxh3_128

from inferway.errors import Quarantined
from inferway_gateway.envelope import Envelope

STRIKES = 2
REMEMBERED_SECONDS = 600.0
MAX_KNOWN = 1024
"""Those that crashed a runner longest ago are forgotten."""


class _Record:
    __slots__ = ("last_at", "strikes")

    def __init__(self, strikes: int, last_at: float) -> None:
        self.strikes, self.last_at = strikes, last_at


class PoisonGuard:
    """One for the process. Times are on the gateway's clock, in seconds."""

    def __init__(self) -> None:
        """Nobody is known."""
        self.known: OrderedDict[bytes, _Record] = OrderedDict()
        """By fingerprint. While it is empty, nobody need be asked about."""
        self.convictions = 0
        """Since the start."""

    def suspicion(self, envelope: Envelope, now: float) -> bytes | None:
        """The fingerprint of a suspect, None for a stranger; raises Quarantined for a convict."""
        fingerprint = fingerprint_of(envelope)
        if not self.is_suspect(fingerprint, now):
            return None
        if self.known[fingerprint].strikes >= STRIKES:
            raise _quarantined(envelope)
        return fingerprint

    def is_suspect(self, fingerprint: bytes, now: float) -> bool:
        """Whether it is still known."""
        record = self.known.get(fingerprint)
        if record is not None and now - record.last_at > REMEMBERED_SECONDS:
            del self.known[fingerprint]
            return False
        return record is not None

    def crashed(self, envelope: Envelope, sent_at: float, now: float, *, as_suspect: bool) -> bytes:
        """A runner crashed with `envelope` aboard, sent to it at `sent_at`. Returns its fingerprint."""
        fingerprint = fingerprint_of(envelope)
        record = self.known.get(fingerprint)
        if record is None:
            self._know(fingerprint, 1, now)
        elif as_suspect and sent_at >= record.last_at:
            self._know(fingerprint, record.strikes + 1, now)
            self.convictions += record.strikes + 1 == STRIKES
        return fingerprint

    def convict(self, envelope: Envelope, now: float) -> None:
        """A worker has convicted `envelope`."""
        self._know(fingerprint_of(envelope), STRIKES, now)
        self.convictions += 1

    def clear(self, fingerprint: bytes) -> None:
        """A request with that fingerprint was answered."""
        self.known.pop(fingerprint, None)

    def _know(self, fingerprint: bytes, strikes: int, now: float) -> None:
        self.known[fingerprint] = _Record(strikes, now)
        self.known.move_to_end(fingerprint)
        if len(self.known) > MAX_KNOWN:
            self.known.popitem(last=False)


def fingerprint_of(envelope: Envelope) -> bytes:
    """Equal for requests that ask the same of the same version."""
    content = xxh3_128(repr((envelope.version.name, envelope.signature)).encode())
    for name, datatype, shape, raw in envelope.inputs:
        content.update(repr((name, int(datatype), tuple(shape))).encode())
        content.update(raw)
    return content.digest()


def _quarantined(envelope: Envelope) -> Quarantined:
    version = envelope.version
    return Quarantined(
        "a request with these inputs ended the model's process twice and is not computed again",
        model=version.model,
        version=version.number,
    )
