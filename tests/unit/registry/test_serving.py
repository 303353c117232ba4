"""What operators may choose of serving, as tables and as laws."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferway.errors import InvalidField
from inferway_registry import convert, serving
from inferway_registry.resources import (
    Manifest,
    Model,
    ModelVersion,
    Runtime,
    ServingOptions,
    VersionConfig,
    VersionPolicy,
    VersionState,
)
from inferway_registry.store import codec

THEN = datetime(2026, 1, 1, tzinfo=UTC)

NUMBERS = st.frozensets(st.integers(1, 12))
ASCENDING = st.frozensets(st.integers(1, 1 << 20), max_size=8).map(sorted).map(tuple)
OPTIONS = st.builds(
    ServingOptions,
    max_batch_rows=st.integers(0, 1 << 20),
    max_queue_delay_us=st.none() | st.integers(0, serving.MAX_QUEUE_DELAY_US),
    buckets=ASCENDING,
    instances=st.integers(0, serving.MAX_INSTANCES),
)
POLICIES = (
    st.builds(VersionPolicy, latest=st.integers(0, serving.MAX_KEPT))
    | st.builds(VersionPolicy, specific=ASCENDING)
    | st.just(VersionPolicy(every=True))
)


@pytest.mark.parametrize(
    ("policy", "kept"),
    [
        (VersionPolicy(), set()),
        (VersionPolicy(latest=2), {5, 9}),
        (VersionPolicy(latest=7), {2, 5, 9}),
        (VersionPolicy(every=True), {2, 5, 9}),
        (VersionPolicy(specific=(2, 3)), {2}),
    ],
    ids=["none", "the newest two", "more than there are", "all", "one of which was unloaded"],
)
def test_what_a_policy_keeps(policy: VersionPolicy, kept: set[int]):
    """The three policies that TensorFlow Serving's users know, and none."""
    assert set(serving.keeps(policy, {9, 2, 5})) == kept


@given(NUMBERS, st.integers(1, 12))
def test_the_newest_are_kept_and_a_new_one_displaces_the_oldest(published: frozenset[int], count: int):
    """A release must never unload a version that is newer than one that stays."""
    kept = set(serving.keeps(VersionPolicy(latest=count), published))

    assert len(kept) == min(count, len(published))
    assert all(gone < min(kept) for gone in published - kept)
    newest = max(published, default=0) + 1
    assert newest in serving.keeps(VersionPolicy(latest=count), published | {newest})


@pytest.mark.parametrize(
    ("options", "publisher_rows", "field"),
    [
        (ServingOptions(max_batch_rows=-1), 0, "options.max_batch_rows"),
        (ServingOptions(max_batch_rows=serving.MAX_BATCH_ROWS + 1), 0, "options.max_batch_rows"),
        (ServingOptions(max_batch_rows=9), 8, "options.max_batch_rows"),
        (ServingOptions(max_queue_delay_us=-1), 0, "options.max_queue_delay"),
        (ServingOptions(max_queue_delay_us=serving.MAX_QUEUE_DELAY_US + 1), 0, "options.max_queue_delay"),
        (ServingOptions(instances=-1), 0, "options.instances"),
        (ServingOptions(instances=serving.MAX_INSTANCES + 1), 0, "options.instances"),
        (ServingOptions(buckets=(0, 8)), 0, "options.buckets[0]"),
        (ServingOptions(buckets=(1, 8, 8)), 0, "options.buckets[2]"),
        (ServingOptions(buckets=(8, 1)), 0, "options.buckets[1]"),
        (ServingOptions(buckets=(1, 8), max_batch_rows=4), 0, "options.buckets[1]"),
        (ServingOptions(buckets=(1, 8)), 4, "options.buckets[1]"),
        (ServingOptions(buckets=tuple(range(1, 100))), 0, "options.buckets"),
    ],
)
def test_a_bound_that_makes_no_sense_is_refused_by_name(options: ServingOptions, publisher_rows: int, field: str):
    """A worker would have to guess what was meant."""
    with pytest.raises(InvalidField) as refused:
        serving.check_options(options, publisher_rows, "options")

    assert refused.value.violations[0].field == field


@pytest.mark.parametrize(
    "options",
    [
        ServingOptions(),
        ServingOptions(max_batch_rows=1, max_queue_delay_us=0, buckets=(1,), instances=1),
        ServingOptions(max_batch_rows=8, max_queue_delay_us=5_000, buckets=(1, 4, 8), instances=2),
    ],
)
def test_a_bound_that_makes_sense_is_taken(options: ServingOptions):
    """The limits themselves are permitted."""
    serving.check_options(options, 8, "options")


@pytest.mark.parametrize(
    ("policy", "field"),
    [
        (VersionPolicy(latest=-1), "policy.latest"),
        (VersionPolicy(latest=serving.MAX_KEPT + 1), "policy.latest"),
        (VersionPolicy(specific=(0,)), "policy.specific.versions[0]"),
        (VersionPolicy(specific=(3, 1)), "policy.specific.versions[1]"),
        (VersionPolicy(specific=tuple(range(1, serving.MAX_KEPT + 2))), "policy.specific.versions"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused_by_name(policy: VersionPolicy, field: str):
    """What is stored is what gateways and workers act on."""
    with pytest.raises(InvalidField) as refused:
        serving.check_policy(policy, "policy")

    assert refused.value.violations[0].field == field


def test_the_log_says_what_was_set():
    """An operator reads who changed what in the events."""
    assert serving.options_in_words(ServingOptions(8, 0, (1, 8), 2)) == (
        "at most 8 rows in a batch; held open at most 0 us; padded to 1, 8 rows; 2 instances"
    )
    assert serving.options_in_words(ServingOptions()) == "none"
    assert serving.policy_in_words(VersionPolicy(latest=2)) == "latest 2"
    assert serving.policy_in_words(VersionPolicy(every=True)) == "all"
    assert serving.policy_in_words(VersionPolicy(specific=(1, 3))) == "1, 3"
    assert serving.policy_in_words(VersionPolicy()) == "none"


@given(OPTIONS)
def test_bounds_survive_the_database_and_the_wire(options: ServingOptions):
    """A bound of 0 and no bound are two things, and stay two things."""
    version = ModelVersion(
        "m", 1, VersionState.PUBLISHED, Runtime.ONNX, Manifest((), ""), (), VersionConfig(), THEN, 1, options
    )

    assert codec.options_from_json(json.loads(json.dumps(codec.options_to_json(options)))) == options
    assert convert.serving_options(convert.version_message(version).serving_options) == options


@given(POLICIES)
def test_policies_survive_the_database_and_the_wire(policy: VersionPolicy):
    """What was set is what is read back."""
    model = Model("m", (), (), THEN, 1, policy)

    assert codec.policy_from_json(json.loads(json.dumps(codec.policy_to_json(policy)))) == policy
    assert convert.version_policy(convert.model_message(model).version_policy) == policy
