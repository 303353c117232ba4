"""Bounds of a version's serving: as typed, as stored, and as the workers report them back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import typer
from google.protobuf.duration_pb2 import Duration

from inferway.registry.v1 import resources_pb2
from inferway.worker.v1 import worker_service_pb2
from inferway_cli.console import CommandError
from inferway_cli.registry import Registry
from inferway_cli.serving_words import figure, listed
from inferway_cli.views import bare

N = TypeVar("N", int, float)
AUTO = "auto"
"""What hands a bound back to the worker."""
POLL_SECONDS = 0.1
HEARD_SECONDS = 5.0
"""By then a worker has heard of a change and said so."""
MAX_BATCH_ROWS = 1 << 20
MAX_QUEUE_DELAY_MS = 10_000
MAX_BUCKETS = 64
MAX_INSTANCES = 64
OWN_INSTANCES = 1
"""Copies that a worker makes where nobody says how many."""
Options = resources_pb2.ServingOptions
Plan = worker_service_pb2.ServingPlan


@dataclass(frozen=True, slots=True)
class Bound:
    """One of the bounds: how it is typed and shown, and where it stands in the stored options and in a plan."""

    flag: str
    field: str
    parse: Callable[[str], Any]
    shown: Callable[[Any], str]
    """A value of the options, as it is typed."""
    planned: Callable[[Plan], Any]
    """What a plan has in its place, in the form of the options."""
    permitted: str
    """What may be typed, in words; the registry's own range."""

    def typed(self, options: Options) -> str:
        """As it would be typed; `auto` if it is not set."""
        return self.shown(_value(options, self)) if is_set(options, self) else AUTO


def _rows(text: str) -> int:
    return _within(1, int(text), MAX_BATCH_ROWS)


def _instances(text: str) -> int:
    return _within(1, int(text), MAX_INSTANCES)


def _buckets(text: str) -> list[int]:
    sizes = [_rows(part) for part in text.split(",")]
    if sizes != sorted(set(sizes)) or len(sizes) > MAX_BUCKETS:
        raise ValueError
    return sizes


def _delay(text: str) -> Duration:
    delay = Duration()
    delay.FromMicroseconds(round(_within(0, float(text), MAX_QUEUE_DELAY_MS) * 1e3))
    return delay


def _within(least: int, number: N, most: int) -> N:
    if not least <= number <= most:
        raise ValueError
    return number


def _milliseconds(delay: Duration) -> str:
    return f"{delay.ToMicroseconds() / 1e3:g}"


def _planned_delay(plan: Plan) -> Duration:
    delay = Duration()
    delay.FromMicroseconds(plan.max_queue_delay_us)
    return delay


BOUNDS = (
    Bound(
        "--max-batch-rows",
        "max_batch_rows",
        _rows,
        str,
        lambda plan: plan.max_batch_rows,
        f"a number of rows from 1 to {MAX_BATCH_ROWS}",
    ),
    Bound(
        "--max-queue-delay",
        "max_queue_delay",
        _delay,
        _milliseconds,
        _planned_delay,
        f"milliseconds from 0 to {MAX_QUEUE_DELAY_MS}",
    ),
    Bound(
        "--buckets",
        "buckets",
        _buckets,
        lambda sizes: listed(sizes).replace(" ", ""),
        lambda plan: list(plan.buckets),
        f"at most {MAX_BUCKETS} sizes from 1 to {MAX_BATCH_ROWS}, each above the last, such as 1,8,32",
    ),
    Bound(
        "--instances",
        "instances",
        _instances,
        str,
        lambda plan: plan.instances,
        f"a number of copies from 1 to {MAX_INSTANCES}",
    ),
)


def changed(before: Options, typed: Iterable[str | None]) -> Options:
    """The options after the change; `typed` are the values of BOUNDS, None where a flag was left out.

    Raises typer.BadParameter.
    """
    after = Options()
    after.CopyFrom(before)
    for bound, text in zip(BOUNDS, typed, strict=True):
        if text is None:
            continue
        after.ClearField(bound.field)  # type: ignore[arg-type] # one of its own fields
        if text != AUTO:
            after.MergeFrom(Options(**{bound.field: _parsed(bound, text)}))
    return after


def is_set(options: Options, bound: Bound) -> bool:
    """Whether the operator has set it. No delay at all is a bound, too."""
    return any(descriptor.name == bound.field for descriptor, _ in options.ListFields())


def rows_of(before: Options, after: Options, plans: dict[str, Plan]) -> list[dict[str, str]]:
    """One row for each bound: as it was, as it is, and what every worker says to it."""
    return [
        {
            "bound": bound.field,
            "before": bound.typed(before),
            "after": bound.typed(after),
            **{worker: _reported(plan, after, bound) for worker, plan in plans.items()},
        }
        for bound in BOUNDS
    ]


def command_line(model: str, number: int, options: Options) -> str:
    """The command that sets exactly these options."""
    flags = " ".join(f"{bound.flag} {bound.typed(options)}" for bound in BOUNDS if is_set(options, bound))
    return f"inferway tune {model} --version {number} --reset {flags}".rstrip()


async def until_reported(
    registry: Registry, name: str, before: Options, after: Options, seconds: float
) -> dict[str, Plan]:
    """Waits until every worker that has the version ready runs it within `after`; returns their plans.

    What was handed back may be as it was set because that is the worker's own choice: after a while it counts as such,
    except for copies, which take long to go. Raises CommandError when the time is over.
    """
    waiting, heard_at = "", time.monotonic() + HEARD_SECONDS
    try:
        async with asyncio.timeout(seconds):
            while True:
                version = await registry.version(name)
                plans = {bare(entry.worker): entry.status.plan for entry in version.workers if _is_ready(entry)}
                waiting = next((worker for worker, plan in plans.items() if not _holds(plan, before, after)), "")
                given_back = any(_is_as_before(plan, before, after) for plan in plans.values())
                if not waiting and not (given_back and time.monotonic() < heard_at):
                    return plans
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        raise CommandError(
            f"the bounds are stored, but {waiting} has not taken them on after {figure(seconds)} s; "
            f"`inferway why {name.split('/')[1]}` shows how it runs the model"
        ) from None


def _parsed(bound: Bound, text: str) -> Any:
    try:
        return bound.parse(text)
    except ValueError:
        problem = f"{text!r} is not {bound.permitted}, or {AUTO}"
        raise typer.BadParameter(problem, param_hint=bound.flag) from None


def _reported(plan: Plan, options: Options, bound: Bound) -> str:
    """What the plan says; `auto` where it says nothing because nothing bounds it."""
    shown = bound.shown(bound.planned(plan))
    return shown if shown not in ("", "0") or is_set(options, bound) else AUTO


def _is_ready(entry: resources_pb2.WorkerVersion) -> bool:
    return entry.status.state == worker_service_pb2.LOAD_STATE_READY and entry.status.HasField("plan")


def _holds(plan: Plan, before: Options, options: Options) -> bool:
    """A batch may be smaller than permitted, where the model or its publisher says so; all else is taken literally."""
    if 0 < options.max_batch_rows < plan.max_batch_rows:
        return False
    if before.instances and not options.instances and plan.instances != OWN_INSTANCES:
        return False
    exact = (bound for bound in BOUNDS if bound.field != "max_batch_rows" and is_set(options, bound))
    return all(bound.planned(plan) == _value(options, bound) for bound in exact)


def _is_as_before(plan: Plan, before: Options, after: Options) -> bool:
    """Something was given back to the worker, and it is still as it was set; perhaps that is its own choice, too."""
    given_back = (bound for bound in BOUNDS if is_set(before, bound) and not is_set(after, bound))
    return any(_reported(plan, after, bound) == bound.typed(before) for bound in given_back)


def _value(options: Options, bound: Bound) -> Any:
    value = getattr(options, bound.field)
    return list(value) if bound.field == "buckets" else value
