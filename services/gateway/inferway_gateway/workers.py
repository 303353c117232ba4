"""The workers as their hellos describe them, and why a version cannot answer now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

from inferway.errors import (
    InferwayError,
    NoWorker,
    VersionLoadFailed,
    VersionNotFound,
    VersionNotReady,
    VersionNotServed,
    VersionUnloaded,
)
from inferway_gateway.forecast import Load, Speed
from inferway_gateway.routing import Version


class LoadState(IntEnum):
    """Where a version stands on a worker. Numbers equal those of `inferway.worker.v1.LoadState`."""

    UNSPECIFIED = 0
    PENDING = 1
    DOWNLOADING = 2
    LOADING = 3
    WARMING = 4
    READY = 5
    DRAINING = 6
    UNLOADED = 7
    FAILED = 8


_LEAVING = frozenset({LoadState.DRAINING, LoadState.UNLOADED})
_TRIED = frozenset({LoadState.READY, LoadState.FAILED})


class Standing(NamedTuple):
    """How a version stands on one worker."""

    state: LoadState
    cause: str = ""
    """Why it failed last, until it is READY."""

    @property
    def is_tried(self) -> bool:
        """It was loaded, or could not be."""
        return self.state in _TRIED


@dataclass(slots=True, eq=False)
class Worker:
    """One worker process, or the address where one was. Shared by all links to it."""

    address: str
    name: str = ""
    """`workers/{worker}`, once it has introduced itself."""
    boot_id: str = ""
    standings: dict[str, Standing] = field(default_factory=dict)
    """By version name, as last said; kept while the worker is away."""
    tried: frozenset[str] = frozenset()
    """Names of versions that it has had ready, or failed to load, since its process began."""
    links_up: int = 0
    rows: int = 0
    """Rows bound to it and not yet answered: its load."""
    rows_of: Counter[str] = field(default_factory=Counter)
    """The same by version name."""
    speeds: dict[str, Speed] = field(default_factory=dict)
    """What it has told of each version, by name."""
    large_calls: int = 0
    """Envelopes on their way outside the links."""
    is_silent: bool = False
    """It owes answers and gives no sign of life."""
    silences: int = 0
    """How often that came to pass."""
    keeps_held: bool = False
    """It wants to be told which versions streams need; an older one would end the link."""

    def introduce(self, name: str, boot_id: str, standings: dict[str, Standing], speeds: dict[str, Speed]) -> None:
        """Takes in a hello."""
        before = self.tried if boot_id == self.boot_id else frozenset()
        self.tried = frozenset([one for one, standing in standings.items() if one in before or standing.is_tried])
        self.name, self.boot_id, self.standings, self.speeds = name, boot_id, standings, speeds

    def add_rows(self, version: str, rows: int) -> None:
        """So many more, or fewer, are bound to it."""
        self.rows += rows
        self.rows_of[version] += rows

    def load_of(self, version: str) -> Load:
        """What a forecast needs."""
        return Load(self.speeds.get(version), self.rows_of[version])


def why_not(version: Version, workers: Iterable[Worker]) -> InferwayError:
    """The error that says why no link leads to a worker that has `version` ready."""
    model, number = version.model, version.number
    if version.unloaded:
        return VersionUnloaded(f"{version.name} was unloaded; restore it to use it", model=model, version=number)
    present = [(worker, worker.standings.get(version.name)) for worker in workers]
    if not version.wanted and all(standing is None or standing.state in _LEAVING for _, standing in present):
        return VersionNotServed(
            f"{version.name} is published, but no arm, alias or policy names it, so no worker loads it",
            model=model,
            version=number,
        )
    if any(standing is not None and standing.state is LoadState.READY for _, standing in present):
        return NoWorker(
            f"the connection to every worker that serves {version.name} is down", model=model, version=number
        )
    connected = [standing for worker, standing in present if worker.links_up]
    if not connected:
        return NoWorker(f"no worker is connected that could serve {version.name}", model=model, version=number)
    standings = [standing for standing in connected if standing is not None]
    cause = next((standing.cause for standing in standings if standing.cause), "")
    if standings and all(standing.state is LoadState.FAILED for standing in standings):
        return VersionLoadFailed(
            f"{version.name} could not be loaded: {cause}", model=model, version=number, cause=cause
        )
    again = f" again, after: {cause}" if cause else ""
    return VersionNotReady(f"{version.name} is being loaded{again}", model=model, version=number)


def why_withdrawn(name: str, version: Version | None, workers: Iterable[Worker]) -> InferwayError:
    """The error for what waits for a version that is unloaded, or not there any more."""
    if version is not None:
        return why_not(version, workers)
    return VersionNotFound(f"{name} was deleted", model=name.split("/")[1], version=name.rpartition("/")[2])
