"""Steps the rollouts: looks at each of them again and again, and writes down where it goes.

It keeps nothing and holds no lease. What it decides is decided anew in the transaction that writes it, from the rollout
and the reports as they are then, so any number of registries on one database may run it: of two that would take the
same step the second finds it taken. ADR 17 has the alternatives.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from inferway_registry import rollout_changes
from inferway_registry.convert_figures import sample_message
from inferway_registry.ledger import Call, Change, Ledger
from inferway_registry.lookout import Lookout
from inferway_registry.rollouts import machine
from inferway_registry.rollouts.rollout import OF_CONTROLLER, Rollout
from inferway_registry.store.reader import Reader
from inferway_registry.store.sql import Store

_LOG = logging.getLogger(__name__)

SAMPLE_SECONDS = 1.0
SAMPLES_OF_AGE = 200
"""A sample is taken when this part of a rollout's age has passed: a long one has not many more than a short one."""


class Controller:
    """Safe to run at any time, and as often as wanted."""

    def __init__(self, store: Store, ledger: Ledger, lookout: Lookout) -> None:
        self._store = store
        self._ledger = ledger
        self._lookout = lookout

    async def run(self) -> None:
        """Steps every rollout that goes on, each by one step.

        Raises StoreUnavailable, or an ExceptionGroup of what went wrong with single ones: no other waits for those.
        """
        async with self._store.reading() as rows:
            active = await rows.active_rollouts()
        wrong: list[Exception] = []
        for rollout in active:
            try:
                await self._look(rollout)
            except Exception as error:  # noqa: BLE001 - it is raised below
                wrong.append(error)
        if wrong:
            raise ExceptionGroup("rollouts that could not be stepped", wrong)

    async def _look(self, rollout: Rollout) -> None:
        async with self._store.reading() as rows:
            sight = await self._lookout.look(rows, rollout)
            due = await self._sample_is_due(rows, rollout)
        if machine.step(rollout, sight.facts) != rollout:
            await self._step(rollout)
        elif due:
            await self._sample(rollout)

    async def _step(self, rollout: Rollout) -> None:
        async def operation(change: Change) -> Rollout | None:
            current = await change.rows.rollout(rollout.endpoint, rollout.number)
            if current is None:
                return None
            sight = await self._lookout.look(change.rows, current)
            return await rollout_changes.step(change, current, sight.facts)

        after = await self._ledger.apply(Call(OF_CONTROLLER, "StepRollout"), operation)
        if after is not None and after.revision != rollout.revision:
            told = {"rollout": after.name, "state": after.state.name, "reason": after.reason}
            _LOG.info("a rollout went on", extra=told)

    async def _sample(self, rollout: Rollout) -> None:
        async with self._store.writing() as rows:
            current = await rows.rollout(rollout.endpoint, rollout.number)
            if current is not None and await self._sample_is_due(rows, current):
                sight = await self._lookout.look(rows, current)
                at = sight.facts.now
                sample = sample_message(current, sight, at).SerializeToString()
                await rows.add_sample(current.endpoint, current.number, at, sample)

    async def _sample_is_due(self, rows: Reader, rollout: Rollout) -> bool:
        last = await rows.last_sample_time(rollout.endpoint, rollout.number)
        return last is None or self._lookout.now() - last >= _interval(rollout, self._lookout.now())


def _interval(rollout: Rollout, now: datetime) -> timedelta:
    return max(timedelta(seconds=SAMPLE_SECONDS), (now - rollout.create_time) / SAMPLES_OF_AGE)
