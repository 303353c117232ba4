"""Brings what the worker holds to what is desired: the one place where versions change state.

Desired ─► policy.make_plan ─► load, retry, unload, forget ─► listeners
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace

from inferway.errors import DoesNotFit, InferwayError, Internal, VersionNotReady
from inferway.names import parse_version
from inferway_chassis.clock import Clock
from inferway_inference.artifacts import ArtifactStore
from inferway_inference.counters import VersionCounters
from inferway_inference.executor import MAX_ANSWER_BYTES, Executor
from inferway_inference.latency import Speed
from inferway_inference.loader import Loaded, Loader
from inferway_inference.observers import Observers
from inferway_inference.plan import ServingPlan
from inferway_inference.policy import Held, PolicyOptions, make_plan
from inferway_inference.quarantine import Quarantine
from inferway_inference.runner.runner_set import RunnerSet
from inferway_inference.states import LOADING_STATES, LoadState, permitted
from inferway_inference.version_holds import VersionHolds
from inferway_inference.versions import Desired, VersionSpec, VersionStatus

_LOG = logging.getLogger(__name__)

BACKOFF_SECONDS = (1.0, 60.0)
STABLE_SECONDS = 60.0
"""A version that was ready for longer begins its backoff anew when it fails: what broke it is something else."""
CRASH_LOOP = 3
"""Crashes in a row, each within STABLE_SECONDS of being ready, from which on the version counts as FAILED."""

APART_AFTER_CRASHES = 2
"""From so many on, a version of a group is loaded into a process of its own: one of them is to blame."""


@dataclass(slots=True, eq=False)
class _Version:
    """One version in the books."""

    spec: VersionSpec
    counters: VersionCounters
    state: LoadState = LoadState.PENDING
    error: InferwayError | None = None
    strikes: int = 0
    """Failures in a row, of loads or by crashing in a loop; they make the backoff."""
    crashes: int = 0
    """In a row, each soon after it was ready."""
    retry_at: float = 0.0
    ready_since: float = 0.0
    unwanted_since: float | None = None
    executor: Executor | None = None
    runners: RunnerSet | None = None
    plan: ServingPlan | None = None
    """Kept through crashes: what was found out before need not be found out again."""
    quarantine: Quarantine = field(default_factory=Quarantine)
    task: asyncio.Task[None] | None = None


@dataclass(frozen=True, slots=True)
class LifecycleOptions:
    """Bounds in time and number."""

    policy: PolicyOptions = field(default_factory=PolicyOptions)
    drain_seconds: float = 30.0
    """How long an unloaded version may take to answer what it holds."""
    max_answer_bytes: int = MAX_ANSWER_BYTES


class Lifecycle:
    """All versions of the worker."""

    def __init__(
        self, loader: Loader, store: ArtifactStore, observers: Observers, options: LifecycleOptions, clock: Clock
    ) -> None:
        """Nothing is wanted yet; `start` begins."""
        self._loader, self._store, self._observers = loader, store, observers
        self._options, self._clock = options, clock
        self._desired = Desired({}, frozenset())
        self._versions: dict[str, _Version] = {}
        self._holds = VersionHolds()
        self._wake = asyncio.Event()
        self._listeners: list[Callable[[], None]] = []
        self._task: asyncio.Task[None] | None = None
        self._stopping = set[asyncio.Task[None]]()
        """The ends of crashed runners: their versions are being loaded again meanwhile."""

    def listen(self, listener: Callable[[], None]) -> None:
        """Calls `listener` after every change of any version's state."""
        self._listeners.append(listener)

    def desire(self, desired: Desired) -> None:
        """Sets the goal; the way there is made in the background. Bounds of versions that serve change at once."""
        self._desired = desired
        for name, held in self._versions.items():
            spec = desired.wanted.get(name)
            if spec is not None and spec.manifest.digest == held.spec.manifest.digest and spec != held.spec:
                held.spec = spec
                self._rebind(held)
        self._wake.set()

    def hold(self, link: Hashable, versions: frozenset[str]) -> None:
        """The streams that come by `link` need these versions, and no others any more."""
        self._holds.replace(link, versions)
        self._wake.set()

    def link_lost(self, link: Hashable) -> None:
        """`link` has ended; what it needed is kept a little longer."""
        self._holds.lost(link, self._versions.keys(), self._clock())
        self._wake.set()

    def executor(self, version: str) -> Executor:
        """Who executes requests for `version`; raises VersionNotReady.

        That holds for a version that failed, too: another worker may have it, and only the gateway knows them all.
        """
        held = self._versions.get(version)
        if held is not None and held.state is LoadState.READY and held.executor is not None:
            return held.executor
        model, number = parse_version(version, "version")
        cause = "" if held is None or held.error is None else f": {held.error.message}"
        raise VersionNotReady(f"{version} is not ready on this worker{cause}", model=model, version=number)

    def ready(self) -> dict[str, Executor]:
        """Executors of all ready versions, by name."""
        return {
            name: held.executor
            for name, held in self._versions.items()
            if held.state is LoadState.READY and held.executor is not None
        }

    def statuses(self) -> list[VersionStatus]:
        """Every version in the books, ordered by name."""
        return [self._status(name, held) for name, held in sorted(self._versions.items())]

    def counters(self) -> dict[str, VersionCounters]:
        """Counters of every version in the books."""
        return {name: held.counters for name, held in sorted(self._versions.items())}

    def start(self) -> None:
        """Begins to act."""
        self._task = asyncio.create_task(self._reconcile_forever(), name="lifecycle")

    async def stop(self) -> None:
        """Ends every runner; requests still held are answered with an error."""
        tasks = [self._task, *(held.task for held in self._versions.values())]
        running = [task for task in tasks if task is not None]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, *self._stopping, return_exceptions=True)
        await asyncio.gather(*(self._end(held) for held in self._versions.values()))

    async def _reconcile_forever(self) -> None:
        swept: frozenset[str] | None = None
        while True:
            self._wake.clear()
            next_at = self._reconcile()
            needed = self._desired.known_digests | {held.spec.manifest.digest for held in self._versions.values()}
            if self._desired.known_digests and needed != swept:
                await self._store.sweep(needed)
                swept = needed
            timeout = None if next_at is None else max(0.0, next_at - self._clock())
            try:
                async with asyncio.timeout(timeout):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _reconcile(self) -> float | None:
        """Acts until the policy has nothing more to say; returns when it may have."""
        while True:
            plan = make_plan(self._wanted_digests(), self._held(), self._clock(), self._options.policy)
            for name in plan.forget:
                self._forget(name)
            for name in plan.add:
                self._versions[name] = _Version(self._desired.wanted[name], VersionCounters())
            for name in plan.retry:
                self._set_state(self._versions[name], LoadState.PENDING)
            for name in plan.load:
                self._begin_load(self._versions[name])
            for name in plan.unload:
                self._begin_unload(self._versions[name])
            if not (plan.forget or plan.add or plan.retry or plan.load):
                return plan.next_at

    def _wanted_digests(self) -> dict[str, str]:
        return {name: spec.manifest.digest for name, spec in self._desired.wanted.items()}

    def _held(self) -> dict[str, Held]:
        """The books as the policy reads them; also notes since when a version is unwanted."""
        held = {}
        for name, own in self._versions.items():
            spec = self._desired.wanted.get(name)
            if spec is not None and spec.manifest.digest == own.spec.manifest.digest:
                own.unwanted_since = None
            elif own.unwanted_since is None:
                own.unwanted_since = self._clock()
            digest = own.spec.manifest.digest
            may_stay = self._desired.published.get(name) == digest
            needed_until = self._holds.needed_until(name) if may_stay else 0.0
            held[name] = Held(digest, own.state, own.retry_at, own.unwanted_since, needed_until)
        return held

    def _begin_load(self, held: _Version) -> None:
        self._set_state(held, LoadState.DOWNLOADING)
        held.task = asyncio.create_task(self._load(held), name=f"load {held.spec.name}")

    def _begin_unload(self, held: _Version) -> None:
        if held.state is LoadState.READY:
            self._set_state(held, LoadState.DRAINING)
            held.task = asyncio.create_task(self._unload(held), name=f"unload {held.spec.name}")
        elif held.state not in LOADING_STATES:
            self._set_state(held, LoadState.UNLOADED)
        elif held.task is not None and not held.task.cancelling():
            held.task.cancel()

    async def _load(self, held: _Version) -> None:
        started = self._clock()
        try:
            loaded = await self._loader.load(
                held.spec,
                lambda state: self._set_state(held, state),
                gently=bool(self.ready()),
                apart=held.crashes >= APART_AFTER_CRASHES,
                like=held.plan,
            )
        except asyncio.CancelledError:
            self._set_state(held, LoadState.UNLOADED)
            raise
        except InferwayError as error:
            self._fail(held, error)
        except Exception:  # noqa: BLE001 - a load runs much code of others; whatever it raises, the worker goes on
            _LOG.exception("a load failed unexpectedly", extra={"version": held.spec.name})
            self._fail(held, Internal("the worker could not load the version; its log says why"))
        else:
            self._serve(held, loaded, started)

    def _serve(self, held: _Version, loaded: Loaded, started: float) -> None:
        runners = held.runners = loaded.runners
        observers = self._observers.of_version(held.spec.name, held.counters, runners.pid)
        held.executor = Executor(
            held.spec.name, loaded, observers, self._clock, self._options.max_answer_bytes, held.quarantine
        )
        held.plan, held.ready_since, held.error = loaded.plan, self._clock(), None
        self._observers.loaded(self._clock() - started)
        self._set_state(held, LoadState.READY)
        runners.on_crash = lambda: self._observers.crashed(held.spec.name)
        if runners.ended is not None:
            self._observers.crashed(held.spec.name)
            self._crashed(held, runners.ended)
            return
        runners.on_exit = lambda error: self._crashed(held, error)
        self._rebind(held)

    def _rebind(self, held: _Version) -> None:
        """The operator's bounds take effect."""
        if held.executor is not None and held.runners is not None:
            held.executor.rebound(held.spec.bounds)
            held.runners.resize(held.spec.bounds.instances or 1)

    def _crashed(self, held: _Version, error: InferwayError) -> None:
        """The last runner ended by itself; a version that was leaving anyway just leaves."""
        if held.state is LoadState.READY:
            self._recover(held, error)
        elif held.executor is not None:
            held.executor.close()

    def _recover(self, held: _Version, error: InferwayError) -> None:
        """Loads again: the first time at once, the second after a pause, then as a version that fails to load."""
        now = self._clock()
        if now - held.ready_since > STABLE_SECONDS:
            held.strikes = held.crashes = 0
        held.crashes += 1
        if held.crashes >= CRASH_LOOP:
            self._fail(held, error)
        else:
            held.error = error
            held.retry_at = now + (held.crashes - 1) * BACKOFF_SECONDS[0]
            _LOG.error("a runner crashed", extra={"version": held.spec.name, "cause": error.message})
            self._set_state(held, LoadState.PENDING)
        self._clear(held)

    def _clear(self, held: _Version) -> None:
        """Answers what a crashed runner held, and gives back in the background what is left of it."""
        executor, runners = held.executor, held.runners
        held.executor = held.runners = None
        if executor is not None:
            executor.close()
        if runners is not None:
            task = asyncio.create_task(runners.stop(), name=f"end {held.spec.name}")
            self._stopping.add(task)
            task.add_done_callback(self._stopping.discard)

    def _fail(self, held: _Version, error: InferwayError) -> None:
        held.error = error
        held.retry_at = self._clock() + min(BACKOFF_SECONDS[0] * 2**held.strikes, BACKOFF_SECONDS[1])
        held.strikes += 1
        self._observers.load_failed()
        _LOG.error(
            "a version is not served",
            extra={"version": held.spec.name, "reason": error.reason, "cause": error.message, **error.metadata},
        )
        self._set_state(held, LoadState.FAILED)

    async def _unload(self, held: _Version) -> None:
        assert held.executor is not None
        try:
            async with asyncio.timeout(self._options.drain_seconds):
                await held.executor.drain()
        except TimeoutError:
            _LOG.warning("unloaded with requests unanswered", extra={"version": held.spec.name})
        await self._end(held)
        self._set_state(held, LoadState.UNLOADED)
        self._memory_freed()

    def _memory_freed(self) -> None:
        """Versions that did not fit may fit now."""
        for held in self._versions.values():
            if held.state is LoadState.FAILED and isinstance(held.error, DoesNotFit):
                held.retry_at = self._clock()

    async def _end(self, held: _Version) -> None:
        """Gives back all that a version has; requests that it still holds are answered with an error."""
        executor, runners = held.executor, held.runners
        held.executor = None
        if executor is not None:
            executor.close()
        if runners is not None:
            await runners.stop()
            held.runners = None if held.runners is runners else held.runners

    def _forget(self, name: str) -> None:
        del self._versions[name]
        self._observers.forget(name)

    def _set_state(self, held: _Version, state: LoadState) -> None:
        assert permitted(held.state, state), f"{held.state.name} to {state.name}"
        held.state = state
        _LOG.info("version", extra={"version": held.spec.name, "state": state.name})
        self._wake.set()
        for listener in self._listeners:
            listener()

    def _plan_now(self, held: _Version) -> ServingPlan | None:
        """As warm-up chose it, within the operator's bounds."""
        if held.plan is None or held.runners is None:
            return None
        bounds, plan = held.spec.bounds, held.plan
        delay = bounds.max_queue_delay_seconds
        return replace(
            plan,
            instances=len(held.runners.copies),
            buckets=bounds.buckets or plan.buckets,
            max_batch_rows=bounds.max_batch_rows or plan.max_batch_rows,
            max_queue_delay_us=plan.max_queue_delay_us if delay is None else int(delay * 1e6),
        )

    def _status(self, name: str, held: _Version) -> VersionStatus:
        memory = held.runners.memory_bytes() if held.runners is not None else 0
        self._observers.memory(name, memory)
        speed = held.executor.scheduler.learned() if held.executor is not None else Speed()
        failed_attempts = 0 if held.state is LoadState.READY else held.strikes
        return VersionStatus(name, held.state, held.error, memory, speed, failed_attempts, self._plan_now(held))
