"""What a rollout does next: each strategy from its beginning to its ends."""

from __future__ import annotations

from inferway_registry.rollouts.rollout import State
from tests.unit.registry.rollout_facts import Controller, fresh, met, spec


def test_a_good_canary_comes_to_all_users_step_by_step():
    """The whole way, with the weights that are published on it."""
    controller = Controller(fresh(spec()))
    assert controller.look() is State.PREPARING
    assert controller.look(29.0) is State.PREPARING
    assert controller.look(1.0) is State.RUNNING
    assert controller.weight == 500
    controller.count(met(5700), met(300))
    assert controller.look(59.0) is State.RUNNING
    assert controller.weight == 500
    controller.look()
    assert (controller.rollout.state, controller.rollout.step, controller.weight) == (State.RUNNING, 1, 5000)
    controller.count(met(300), met(300))
    assert controller.look(60.0) is State.PROMOTING
    assert controller.weight == 10_000
    assert controller.look() is State.PROMOTING
    controller.confirm()
    assert controller.look() is State.BAKING
    assert controller.look(299.0) is State.BAKING
    assert controller.look() is State.SUCCEEDED
    assert [arm.number for arm in controller.published] == [2]
