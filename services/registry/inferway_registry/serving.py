"""What operators choose of serving: the bounds of a version, and which versions of a model stay loaded. Pure."""

from __future__ import annotations

from collections.abc import Collection

from inferway.errors import InvalidField
from inferway_registry.resources import ServingOptions, VersionPolicy

MAX_BATCH_ROWS = 1 << 20
MAX_QUEUE_DELAY_US = 10_000_000
"""Ten seconds: the time that a call has unless it says otherwise."""
MAX_BUCKETS = 64
MAX_INSTANCES = 64
"""Copies on each worker; one that has fewer cores gains nothing from more."""
MAX_KEPT = 1_000
"""Versions that a policy may count or list."""


def keeps(policy: VersionPolicy, published: Collection[int]) -> Collection[int]:
    """Those of the `published` numbers of one model that its policy keeps loaded."""
    if policy.every:
        return published
    if policy.latest:
        return sorted(published)[-policy.latest :]
    return [number for number in policy.specific if number in published]


def check_policy(policy: VersionPolicy, field: str) -> None:
    """Raises InvalidField unless the numbers of a policy make sense."""
    _check_range(policy.latest, MAX_KEPT, f"{field}.latest")
    if len(policy.specific) > MAX_KEPT:
        raise InvalidField.at(f"{field}.specific.versions", f"{len(policy.specific)} versions; at most {MAX_KEPT}")
    _check_ascending(policy.specific, f"{field}.specific.versions")


def check_options(options: ServingOptions, publisher_rows: int, field: str) -> None:
    """Raises InvalidField unless every bound makes sense; `publisher_rows` is the publisher's own, 0 for none."""
    _check_range(options.max_batch_rows, MAX_BATCH_ROWS, f"{field}.max_batch_rows")
    if 0 < publisher_rows < options.max_batch_rows:
        raise InvalidField.at(f"{field}.max_batch_rows", f"the version was published with at most {publisher_rows}")
    _check_range(options.max_queue_delay_us or 0, MAX_QUEUE_DELAY_US, f"{field}.max_queue_delay", " microseconds")
    _check_range(options.instances, MAX_INSTANCES, f"{field}.instances")
    _check_buckets(options.buckets, options.max_batch_rows or publisher_rows or MAX_BATCH_ROWS, f"{field}.buckets")


def options_in_words(options: ServingOptions) -> str:
    """The bounds that are set, for the log of events."""
    told = []
    if options.max_batch_rows:
        told.append(f"at most {options.max_batch_rows} rows in a batch")
    if options.max_queue_delay_us is not None:
        told.append(f"held open at most {options.max_queue_delay_us} us")
    if options.buckets:
        told.append(f"padded to {_listed(options.buckets)} rows")
    if options.instances:
        told.append(f"{options.instances} instances")
    return "; ".join(told) or "none"


def policy_in_words(policy: VersionPolicy) -> str:
    """For the log of events."""
    if policy.every:
        return "all"
    if policy.latest:
        return f"latest {policy.latest}"
    return _listed(policy.specific) or "none"


def _check_buckets(buckets: tuple[int, ...], most: int, field: str) -> None:
    if len(buckets) > MAX_BUCKETS:
        raise InvalidField.at(field, f"{len(buckets)} sizes; at most {MAX_BUCKETS}")
    _check_ascending(buckets, field)
    if buckets and buckets[-1] > most:
        raise InvalidField.at(f"{field}[{len(buckets) - 1}]", f"is {buckets[-1]}; a batch has at most {most} rows")


def _check_range(value: int, most: int, field: str, unit: str = "") -> None:
    if not 0 <= value <= most:
        raise InvalidField.at(field, f"expected 0 to {most}{unit}")


def _check_ascending(values: tuple[int, ...], field: str) -> None:
    for index, (before, value) in enumerate(zip((0, *values), values, strict=False)):
        if value <= before:
            raise InvalidField.at(f"{field}[{index}]", f"is {value}; expected numbers from 1 on, each above the last")


def _listed(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers))
