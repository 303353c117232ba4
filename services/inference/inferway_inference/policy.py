"""Pure policy of the lifecycle: from what is wanted and what is there to what to do next.

A version is identified by its name and the digest of its files: a model that was deleted and made again may have
another version of the same name, which never takes the place of the old one without an unload.

A version that is in the books and not wanted any more is kept as if it were while streams need it, for a bounded time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from inferway_inference.states import LOADING_STATES, LoadState


@dataclass(frozen=True, slots=True)
class PolicyOptions:
    """Bounds of what a worker does at once."""

    max_loading: int = 2
    """Versions being loaded at the same time."""
    max_loaded: int = 64
    """Versions with a runner; more stay PENDING."""
    linger_seconds: float = 1.0
    """How long a version still answers after nobody wants it: gateways hear of the change at their own time."""
    hold_seconds: float = 600.0
    """How long at most it is kept after nobody wants it because streams need it."""


@dataclass(frozen=True, slots=True)
class Held:
    """What the worker has of a version."""

    digest: str
    state: LoadState
    retry_at: float = 0.0
    """Not before; of one that is PENDING or FAILED."""
    unwanted_since: float | None = None
    needed_until: float = 0.0
    """Streams go on with it until then, as far as anybody knows; 0 if they must not, or there are none."""


@dataclass(slots=True)
class Plan:
    """What to do, each list ordered by name."""

    add: list[str] = field(default_factory=list)
    """Note as PENDING."""
    load: list[str] = field(default_factory=list)
    """Begin to load, PENDING → DOWNLOADING."""
    retry: list[str] = field(default_factory=list)
    """FAILED → PENDING."""
    unload: list[str] = field(default_factory=list)
    """Stop loading, or drain and end."""
    forget: list[str] = field(default_factory=list)
    """Drop from the books."""
    next_at: float | None = None
    """When the plan changes by time alone."""


def make_plan(wanted: Mapping[str, str], held: Mapping[str, Held], now: float, options: PolicyOptions) -> Plan:
    """Returns the next actions. `wanted` maps version names to digests. Idempotent: an empty plan means settled."""
    plan = Plan(add=sorted(wanted.keys() - held.keys()))
    for name in sorted(held):
        own = held[name]
        if wanted.get(name) == own.digest:
            _keep(name, own, plan, now)
        elif name in wanted:
            _let_go(name, own, plan, now, now)
        elif (held_until := _held_until(own, options, now)) > now:
            _keep(name, own, plan, now)
            _wake(plan, held_until)
        else:
            _let_go(name, own, plan, _unwanted_since(own, now) + options.linger_seconds, now)
    active = [own for own in held.values() if own.state in LOADING_STATES]
    running = [own for own in held.values() if own.state in (LoadState.READY, LoadState.DRAINING)]
    room = min(options.max_loading - len(active), options.max_loaded - len(active) - len(running))
    plan.load = plan.load[: max(0, room)]
    return plan


def _keep(name: str, own: Held, plan: Plan, now: float) -> None:
    if own.state is LoadState.UNLOADED:
        plan.forget.append(name)
    elif own.state in (LoadState.PENDING, LoadState.FAILED):
        if own.retry_at > now:
            _wake(plan, own.retry_at)
        elif own.state is LoadState.PENDING:
            plan.load.append(name)
        else:
            plan.retry.append(name)


def _held_until(own: Held, options: PolicyOptions, now: float) -> float:
    return min(own.needed_until, _unwanted_since(own, now) + options.hold_seconds)


def _unwanted_since(own: Held, now: float) -> float:
    return now if own.unwanted_since is None else own.unwanted_since


def _let_go(name: str, own: Held, plan: Plan, leaves_at: float, now: float) -> None:
    if own.state is LoadState.UNLOADED:
        plan.forget.append(name)
    elif own.state is LoadState.READY and leaves_at > now:
        _wake(plan, leaves_at)
    elif own.state is not LoadState.DRAINING:
        plan.unload.append(name)


def _wake(plan: Plan, at: float) -> None:
    plan.next_at = at if plan.next_at is None else min(plan.next_at, at)
