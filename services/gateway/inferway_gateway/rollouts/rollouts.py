"""All rollouts and splits in this gateway's routing table: begun and forgotten with it, with the registry away, too."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Collection

from inferway_gateway.envelope import Envelope, Observer
from inferway_gateway.rollouts.mirror import Mirrors
from inferway_gateway.rollouts.splits import Splits
from inferway_gateway.rollouts.trial import Trial
from inferway_gateway.rollouts.truce import Truce
from inferway_gateway.routing import Decision, Endpoint, RoutingTable

_LOG = logging.getLogger(__name__)


class Rollouts:
    """Everything happens on the event loop, in calls that return at once."""

    def __init__(
        self,
        brake: Callable[[str], None],
        mirrors_of: Callable[[str], Mirrors],
        is_away: Callable[[str], bool],
        random: Callable[[], float] = random.random,
    ) -> None:
        """`brake` is given the name of a rollout whose candidate is to get nothing here from now on.

        `mirrors_of` makes those who copy the requests of an endpoint, from its salt; `is_away` is as for `Truce`.
        """
        self._brake, self._mirrors_of, self._is_away, self._random = brake, mirrors_of, is_away, random
        self._trials: dict[str, Trial] = {}
        self.splits = Splits()
        """Endpoints with several arms that no rollout drives."""
        self.on_news: Callable[[], None] = lambda: None
        """Called when the registry should hear at once: of other weights, or of a brake."""
        self.brakes = 0
        """How often one was pulled."""

    @property
    def trials(self) -> Collection[Trial]:
        """Of all rollouts there are."""
        return self._trials.values()

    def apply(self, table: RoutingTable) -> None:
        """Begins, follows and forgets rollouts and splits as the registry's `table` says."""
        driven = [endpoint for endpoint in table.endpoints.values() if endpoint.rollout is not None]
        names = {endpoint.rollout.rollout for endpoint in driven if endpoint.rollout is not None}
        self._trials = {name: trial for name, trial in self._trials.items() if name in names}
        news = [self._follow(endpoint) for endpoint in driven]
        if self.splits.apply(table) or any(news):
            self.on_news()

    def observe(self, endpoint: Endpoint, decision: Decision, envelope: Envelope) -> Observer | None:
        """Who wants to know what becomes of a request that chance gave an arm of `endpoint`, as it was then."""
        plan = endpoint.rollout
        if plan is None:
            return self.splits.observe(endpoint, decision)
        trial = self._trials.get(plan.rollout)
        return None if trial is None else trial.meet(decision, envelope)

    def _follow(self, endpoint: Endpoint) -> bool:
        plan = endpoint.rollout
        assert plan is not None
        trial = self._trials.get(plan.rollout)
        if trial is None:
            mirrors, truce = self._mirrors_of(endpoint.salt), Truce(self._is_away)
            trial = self._trials[plan.rollout] = Trial(plan, mirrors, truce, self._stop, self._random)
        return trial.follow(endpoint, plan)

    def _stop(self, trial: Trial) -> None:
        name = trial.plan.rollout
        self.brakes += 1
        _LOG.warning("the candidate is stopped here", extra={"rollout": name, "cause": trial.brake_reason})
        self._brake(name)
        self.on_news()
