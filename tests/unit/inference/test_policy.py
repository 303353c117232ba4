"""What the lifecycle decides to do, as a table and as properties."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferway_inference.policy import Held, Plan, PolicyOptions, make_plan
from inferway_inference.states import TRANSITIONS, LoadState, permitted

V1, V2 = "models/m/versions/1", "models/m/versions/2"
OPTIONS = PolicyOptions(max_loading=1, max_loaded=3, linger_seconds=2.0, hold_seconds=50.0)
NOW = 100.0


def held_for_streams(state: LoadState, unwanted_since: float, needed_until: float = math.inf) -> Held:
    """A version that nobody but streams needs."""
    return Held("d", state, unwanted_since=unwanted_since, needed_until=needed_until)


@pytest.mark.parametrize(
    ("wanted", "held", "expected"),
    [
        ({}, {}, Plan()),
        ({V1: "d"}, {}, Plan(add=[V1])),
        ({V1: "d"}, {V1: Held("d", LoadState.PENDING)}, Plan(load=[V1])),
        ({V1: "d"}, {V1: Held("d", LoadState.PENDING, retry_at=NOW + 1)}, Plan(next_at=NOW + 1)),
        ({V1: "d"}, {V1: Held("d", LoadState.LOADING)}, Plan()),
        ({V1: "d"}, {V1: Held("d", LoadState.READY)}, Plan()),
        ({V1: "d"}, {V1: Held("d", LoadState.FAILED, retry_at=NOW)}, Plan(retry=[V1])),
        ({V1: "d"}, {V1: Held("d", LoadState.FAILED, retry_at=NOW + 1)}, Plan(next_at=NOW + 1)),
        ({V1: "d"}, {V1: Held("d", LoadState.UNLOADED)}, Plan(forget=[V1])),
        ({}, {V1: Held("d", LoadState.UNLOADED)}, Plan(forget=[V1])),
        ({}, {V1: Held("d", LoadState.DRAINING)}, Plan()),
        ({}, {V1: Held("d", LoadState.FAILED, retry_at=NOW)}, Plan(unload=[V1])),
        ({}, {V1: Held("d", LoadState.DOWNLOADING)}, Plan(unload=[V1])),
        ({}, {V1: Held("d", LoadState.READY, unwanted_since=NOW)}, Plan(next_at=NOW + 2)),
        ({}, {V1: Held("d", LoadState.READY, unwanted_since=NOW - 2)}, Plan(unload=[V1])),
        # The name is wanted with other content: nothing lingers, and the new one waits until the old one is gone.
        ({V1: "e"}, {V1: Held("d", LoadState.READY)}, Plan(unload=[V1])),
        ({V1: "e"}, {V1: Held("d", LoadState.UNLOADED)}, Plan(forget=[V1])),
        # Streams need it: kept as if it were wanted, for a bounded time, and again if its runner crashes meanwhile.
        ({}, {V1: held_for_streams(LoadState.READY, NOW - 10)}, Plan(next_at=NOW + 40)),
        ({}, {V1: held_for_streams(LoadState.READY, NOW - 10, NOW + 5)}, Plan(next_at=NOW + 5)),
        ({}, {V1: held_for_streams(LoadState.READY, NOW - 10, NOW)}, Plan(unload=[V1])),
        ({}, {V1: held_for_streams(LoadState.READY, NOW - 50)}, Plan(unload=[V1])),
        ({}, {V1: held_for_streams(LoadState.READY, NOW - 1, NOW)}, Plan(next_at=NOW + 1)),
        ({}, {V1: held_for_streams(LoadState.PENDING, NOW - 10)}, Plan(load=[V1], next_at=NOW + 40)),
        ({}, {V1: held_for_streams(LoadState.WARMING, NOW - 10)}, Plan(next_at=NOW + 40)),
        ({}, {V1: held_for_streams(LoadState.DRAINING, NOW - 10)}, Plan(next_at=NOW + 40)),
        ({}, {V1: held_for_streams(LoadState.UNLOADED, NOW - 10)}, Plan(forget=[V1], next_at=NOW + 40)),
        ({V1: "e"}, {V1: held_for_streams(LoadState.READY, NOW)}, Plan(unload=[V1])),
        # One load at a time.
        ({V1: "d", V2: "d"}, {V1: Held("d", LoadState.WARMING), V2: Held("d", LoadState.PENDING)}, Plan()),
        ({V1: "d", V2: "d"}, {V1: Held("d", LoadState.PENDING), V2: Held("d", LoadState.PENDING)}, Plan(load=[V1])),
    ],
)
def test_the_next_step_of_each_situation(wanted: dict[str, str], held: dict[str, Held], expected: Plan):
    """The table is the specification of the lifecycle."""
    assert make_plan(wanted, held, NOW, OPTIONS) == expected


def test_no_more_versions_than_permitted_have_a_runner():
    """Memory is finite; what has no room stays PENDING, where everybody can see it."""
    held = {f"models/m/versions/{n}": Held("d", LoadState.READY) for n in (1, 2, 3)}
    wanted = dict.fromkeys([*held, "models/m/versions/4"], "d")
    plan = make_plan(wanted, held | {"models/m/versions/4": Held("d", LoadState.PENDING)}, NOW, OPTIONS)

    assert plan.load == []


NAMES = st.sampled_from([f"models/m/versions/{n}" for n in range(1, 7)])
WANTED = st.dictionaries(NAMES, st.sampled_from("de"))
HELD = st.dictionaries(
    NAMES,
    st.builds(
        Held,
        st.sampled_from("de"),
        st.sampled_from(LoadState),
        st.floats(0, 200),
        st.none(),
        st.one_of(st.floats(0, 200), st.just(math.inf)),
    ),
)


@given(WANTED, HELD)
def test_following_the_plan_reaches_what_is_wanted_by_permitted_steps(wanted: dict[str, str], held: dict[str, Held]):
    """From any situation every wanted version that has room becomes READY, and nothing else stays for ever."""
    now = NOW
    for _ in range(200):
        plan = make_plan(wanted, held, now, OPTIONS)
        now = max(now + 1, plan.next_at or 0)
        held = followed(plan, wanted, held)

    assert set(held) == set(wanted)
    assert sum(own.state is LoadState.READY for own in held.values()) >= min(len(wanted), OPTIONS.max_loaded)
    assert all(own.digest == wanted[name] for name, own in held.items())


def followed(plan: Plan, wanted: dict[str, str], held: dict[str, Held]) -> dict[str, Held]:
    """What is held after the plan, if every step takes as long as the next look."""
    after = {name: replace(own, state=_next_state(own.state), unwanted_since=NOW) for name, own in held.items()}
    for names, state in (
        (plan.load, LoadState.DOWNLOADING),
        (plan.retry, LoadState.PENDING),
        (plan.unload, LoadState.UNLOADED),
    ):
        for name in names:
            old = held[name].state
            assert permitted(old, state) or (old, state) == (LoadState.READY, LoadState.UNLOADED)
            after[name] = replace(held[name], state=state, unwanted_since=NOW)
    after |= {name: Held(wanted[name], LoadState.PENDING) for name in plan.add}
    return {name: own for name, own in after.items() if name not in plan.forget}


def _next_state(state: LoadState) -> LoadState:
    steps = {
        LoadState.DOWNLOADING: LoadState.LOADING,
        LoadState.LOADING: LoadState.WARMING,
        LoadState.WARMING: LoadState.READY,
        LoadState.DRAINING: LoadState.UNLOADED,
    }
    return steps.get(state, state)


@pytest.mark.parametrize("state", LoadState)
def test_every_state_has_its_transitions_written_down(state: LoadState):
    """A state that is missing from the table could never be left."""
    assert all(permitted(state, after) == (after in TRANSITIONS[state]) for after in LoadState)
