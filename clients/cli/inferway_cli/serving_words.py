"""How a version is run, in words and figures for people: plans, bounds, policies, sizes and times."""

from __future__ import annotations

from collections.abc import Sequence

from inferway.registry.v1 import resources_pb2
from inferway.worker.v1 import worker_service_pb2

PLACES = {
    "process": "in a process of its own",
    "group": "in a process that it shares with other small models",
    "inline": "inside the worker's own process",
}
_SIZES = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
_TIMES = ((1e6, "s"), (1e3, "ms"))
_NUMBERS = ((1e6, "M"), (1e4, "k"))


def plan_in_words(plan: worker_service_pb2.ServingPlan) -> str:
    """A sentence that says how the worker runs the version."""
    place = PLACES.get(plan.isolation, f"as {plan.isolation!r}")
    copies = f"{place}: one copy of the model" if plan.instances == 1 else f"as {_copies(plan.instances)}, each {place}"
    side = "one batch at a time" if plan.callers == 1 else f"{plan.callers} batches side by side"
    each = side if plan.instances == 1 else f"{side} in each"
    return (
        f"It runs {copies}, {each}, {threads_in_words(plan.threads)} to a batch. "
        f"A batch has at most {counted(plan.max_batch_rows, 'row')}{_padding(plan.buckets)}"
        f"{f', and {_delay(plan.max_queue_delay_us)}' if plan.max_queue_delay_us else ''}."
    )


def plan_in_short(plan: worker_service_pb2.ServingPlan) -> str:
    """The same as the end of a line."""
    parts = [plan.isolation, counted(plan.instances, "copy", "copies"), f"{plan.callers} side by side"]
    parts.append(f"batches up to {plan.max_batch_rows}")
    return ", ".join(parts)


def threads_in_words(threads: int) -> str:
    """0 stands for all cores."""
    return counted(threads, "thread") if threads else "all cores"


def options_in_words(options: resources_pb2.ServingOptions) -> list[str]:
    """Each bound that an operator set; none if everything is the worker's own choice."""
    told = []
    if options.max_batch_rows:
        told.append(f"batches of at most {counted(options.max_batch_rows, 'row')}")
    if options.HasField("max_queue_delay"):
        told.append(_delay(options.max_queue_delay.ToMicroseconds()))
    if options.buckets:
        told.append(f"batches padded to {listed(options.buckets)} rows")
    if options.instances:
        told.append(_copies(options.instances))
    return told


def policy_in_words(policy: resources_pb2.VersionPolicy) -> str:
    """Which versions workers keep loaded."""
    named = "those that traffic and aliases name"
    match policy.WhichOneof("policy"):
        case "latest":
            return f"the latest {policy.latest}, and {named}"
        case "all":
            return "all that are published"
        case "specific":
            return f"{listed(policy.specific.versions)}, and {named}"
    return f"only {named}"


def stream_policy_name(policy: resources_pb2.StreamPolicy.ValueType) -> str:
    """`finish`, `migrate`, or `default`."""
    name = resources_pb2.StreamPolicy.Name(policy).removeprefix("STREAM_POLICY_").lower()
    return "default" if name == "unspecified" else name


def counted(number: int, singular: str, plural: str = "") -> str:
    """`1 row`, `2 rows`."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"


def listed(numbers: Sequence[int]) -> str:
    """`1, 8, 32`."""
    return ", ".join(map(str, numbers))


def size(count: float) -> str:
    """Bytes with three figures at most, for example `412 MB`."""
    return _scaled(count, _SIZES, "bytes")


def duration(microseconds: float) -> str:
    """A time with three figures at most, for example `3.1 ms`."""
    return _scaled(microseconds, _TIMES, "us")


def figure(number: float) -> str:
    """A number with about two to four figures, for example `7.1`, `140`, `12k`."""
    for unit, name in _NUMBERS:
        if number >= unit:
            return _digits(number / (unit if name == "M" else 1e3)) + name
    return _digits(number)


def _scaled(number: float, units: Sequence[tuple[float, str]], smallest: str) -> str:
    for unit, name in units:
        if number >= unit:
            return f"{_digits(number / unit)} {name}"
    return f"{_digits(number)} {smallest}"


def _digits(number: float) -> str:
    if number >= 100:  # noqa: PLR2004 - from here on decimals are noise
        return f"{number:.0f}"
    return f"{number:.1f}".removesuffix(".0") if number >= 1 else f"{number:.2g}"


def _copies(count: int) -> str:
    return f"{counted(count, 'copy', 'copies')} of the model"


def _padding(buckets: Sequence[int]) -> str:
    return f", filled up to {listed(buckets)}" if buckets else ""


def _delay(microseconds: int) -> str:
    if not microseconds:
        return "no batch is held open on purpose"
    return f"no batch is held open longer than {duration(microseconds)}"
