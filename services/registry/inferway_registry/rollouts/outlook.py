"""What happens next to a rollout, what it waits for and how long that takes, in plain English. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from inferway_registry.rollouts import agreement, canary, judging, moves, preparing, words
from inferway_registry.rollouts.facts import Facts
from inferway_registry.rollouts.rollout import Rollout, State
from inferway_registry.rollouts.spec import BlueGreen, Canary, Mirror, OnInconclusive, Shadow
from inferway_registry.rollouts.thresholds import MIN_ANSWERS


def next_words(rollout: Rollout, facts: Facts) -> str:
    """One or two sentences for people who watch; empty once it has ended."""
    says = _SAYS.get(rollout.state)
    return says(rollout, facts) if says else ""


def _pending(_: Rollout, __: Facts) -> str:
    return "Begins within a second."


def _preparing(rollout: Rollout, facts: Facts) -> str:
    waits = []
    if not preparing.loaded(rollout, facts):
        workers = f"{facts.ready_workers} of {facts.needed_workers} workers"
        waits.append(f"workers to load {words.version(rollout.spec.candidate)} ({workers} have)")
    if not preparing.watched(rollout, facts):
        left = _left(rollout, facts, rollout.spec.baseline_seconds)
        answers = f"{facts.profile.answers:,} of at least {MIN_ANSWERS} answers"
        waits.append(f"{words.version(rollout.stable)} to be watched ({answers} seen, {left} to go)")
    if not waits:
        return "Goes on within a second."
    patience = _left(rollout, facts, preparing.patience(rollout))
    return f"Waits for {' and for '.join(waits)}, {patience} at most."


def _running(rollout: Rollout, facts: Facts) -> str:
    match rollout.spec.strategy:
        case Canary() as strategy:
            goes_on = _canary(rollout, strategy, facts)
            limit = moves.patience(strategy.steps[rollout.step].hold_seconds)
        case BlueGreen(mirror, min_pairs):
            goes_on = f"All users are switched when {_pairs(rollout, facts, mirror, min_pairs)}."
            limit = rollout.spec.prepare_seconds
        case Shadow(mirror, min_pairs, hold):
            held = f"{words.span(hold)} ({_left(rollout, facts, hold)} to go)"
            goes_on = f"Ends after {held}, when {_pairs(rollout, facts, mirror, min_pairs)}; no traffic is moved."
            limit = moves.patience(hold)
    if not facts.holders:
        goes_on = f"Waits until a worker has {words.version(rollout.spec.candidate)} ready. {goes_on}"
    gives_up = "rolls back" if rollout.spec.on_inconclusive is OnInconclusive.ROLL_BACK else "pauses"
    return f"{goes_on} If too little is seen it {gives_up} in {_left(rollout, facts, limit)}."


def _canary(rollout: Rollout, strategy: Canary, facts: Facts) -> str:
    last = rollout.step + 1 >= len(strategy.steps)
    share = "all users" if last else words.percent(strategy.steps[rollout.step + 1].weight_basis_points)
    hold = strategy.steps[rollout.step].hold_seconds
    phases = judging.phases_of(rollout, facts)
    units = phases[-1].canary.units if phases else 0
    held = f"{words.span(hold)} ({_left(rollout, facts, hold)} to go)"
    candidate, needed = words.version(rollout.spec.candidate), rollout.spec.judging.min_units
    needs = f"{candidate} has met {needed:,} units ({units:,} so far)"
    outputs = judging.fewest_outputs(rollout, facts)
    if outputs is not None and outputs < min(units, needed):
        needs += f", as many of its outputs could be compared ({outputs:,} so far)"
    proof = rollout.spec.judging.errors_not_inferior
    if proof is not None and canary.asks_proof(rollout, strategy):
        needs += f", errors are proven to be less than {proof:g} times as frequent"
    return f"Goes on to {share} after {held}, when {needs} and no harm is found; harm rolls back at once."


def _pairs(rollout: Rollout, facts: Facts, mirror: Mirror, needed: int) -> str:
    pairs, _ = judging.pairs_of(rollout, facts)
    seen = f"{needed:,} pairs of answers are compared ({pairs.pairs:,} so far"
    if not pairs.pairs:
        return f"{seen})"
    lower, upper = agreement.bounds(pairs.pairs, pairs.agreeing)
    return f"{seen}; {words.between(lower, upper)} agree, {mirror.min_agreement * 100:g} % are asked for)"


def _baking(rollout: Rollout, facts: Facts) -> str:
    left = _left(rollout, facts, rollout.spec.bake_seconds)
    return f"Succeeds in {left} if no harm is found. Until then an abort switches back at once."


def _promoting(rollout: Rollout, facts: Facts) -> str:
    return f"{_until_confirmed(rollout, facts)}, then watches for {words.span(rollout.spec.bake_seconds)}."


def _rolling_back(rollout: Rollout, facts: Facts) -> str:
    return f"{_until_confirmed(rollout, facts)}, then it has ended."


def _paused(rollout: Rollout, _: Facts) -> str:
    if isinstance(rollout.spec.strategy, Shadow) and rollout.acts_as is State.RUNNING:
        return "Waits for somebody to resume or abort it."
    if rollout.reason.startswith("srm:"):
        return "Waits for somebody to promote or abort it: a wrong split does not heal. Harm still rolls back at once."
    return "Waits for somebody to resume, promote or abort it. Weights stay; harm still rolls back at once."


def _until_confirmed(rollout: Rollout, facts: Facts) -> str:
    left = _left(rollout, facts, moves.CONFIRM_SECONDS)
    return f"Waits until every gateway routes by the new weights, {left} at most"


def _left(rollout: Rollout, facts: Facts, seconds: float) -> str:
    return words.span(seconds - rollout.seconds_in_state(facts.now))


_SAYS: Mapping[State, Callable[[Rollout, Facts], str]] = {
    State.PENDING: _pending,
    State.PREPARING: _preparing,
    State.RUNNING: _running,
    State.PROMOTING: _promoting,
    State.BAKING: _baking,
    State.PAUSED: _paused,
    State.ROLLING_BACK: _rolling_back,
}
