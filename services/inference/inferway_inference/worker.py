"""The worker's use cases, whatever the transport: take requests, cancel them, say what is there, drain."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass

from inferway.errors import InferwayError
from inferway_inference.counters import VersionCounters
from inferway_inference.executor import Executor
from inferway_inference.explain import Explanation, explain
from inferway_inference.lifecycle import Lifecycle
from inferway_inference.versions import VersionStatus
from inferway_inference.work import Answer, Request


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a worker is."""

    name: str
    """`workers/{worker}`."""
    boot_id: str
    """Changes with every start of the process."""
    labels: tuple[tuple[str, str], ...] = ()


class Worker:
    """What the servicer calls."""

    def __init__(self, identity: Identity, lifecycle: Lifecycle) -> None:
        """Serves what `lifecycle` holds."""
        self.identity = identity
        self.draining = False
        self._lifecycle = lifecycle
        self._listeners: list[Callable[[], None]] = []
        lifecycle.listen(self._changed)

    def submit(self, requests: Iterable[Request]) -> None:
        """Takes requests in; each is answered through its `reply`, also if it is refused."""
        touched: set[Executor] = set()
        for request in requests:
            try:
                executor = self._lifecycle.executor(request.version)
            except InferwayError as error:
                request.reply(request, Answer(error=error))
                continue
            touched.add(executor)
            try:
                executor.submit(request)
            except InferwayError as error:
                executor.refused(request, error)
        for executor in touched:
            executor.pump()

    def cancel(self, request: Request) -> None:
        """Nobody waits for the answer any more."""
        request.cancelled = True
        ready = self._lifecycle.ready().get(request.version)
        if ready is not None:
            ready.cancel(request)

    def hold(self, link: Hashable, versions: frozenset[str]) -> None:
        """The streams that come by `link` need these versions, and no others any more.

        What the worker has of them is kept for a bounded time after nobody wants it, unless the operator unloads it.
        """
        self._lifecycle.hold(link, versions)

    def link_lost(self, link: Hashable) -> None:
        """`link` has ended."""
        self._lifecycle.link_lost(link)

    def ready(self) -> dict[str, Executor]:
        """Executors of all ready versions, by resource name."""
        return self._lifecycle.ready()

    def statuses(self) -> list[VersionStatus]:
        """How every version stands."""
        return self._lifecycle.statuses()

    def explain(self, version: str, now: float) -> Explanation:
        """How a version is served and why; raises InvalidName or VersionNotReady."""
        executor = self._lifecycle.executor(version)
        status = next(status for status in self.statuses() if status.version == version)
        return explain(status, executor, now)

    def counters(self) -> dict[str, VersionCounters]:
        """What every version did."""
        return self._lifecycle.counters()

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Calls `listener` when versions change their state or the worker begins to drain; returns how to end that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    async def drain(self) -> None:
        """Tells everybody that the worker is leaving; it still serves."""
        self.draining = True
        self._changed()

    def _changed(self) -> None:
        for listener in tuple(self._listeners):
            listener()
