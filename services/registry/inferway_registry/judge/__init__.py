"""The judge of rollouts: whether a canary does harm, from counts, as often as one likes to ask.

    plan = Plan((Rate("errors", ("INTERNAL", "UNAVAILABLE"), alpha=0.04), Drift("scores", alpha=0.01)))
    phases[-1] = phases[-1].plus(stable, canary)    what gateways counted since; a new Phase where the weights change
    judgement = judge(plan, phases)                 verdict, a sentence that says why, and numbers for each metric

It keeps nothing: who stores the sums can be restarted, and another process comes to the same verdict. `counts` says
what may be counted so that the tests are exact, `split` and the chassis' `ratio` have the formulas and their sources,
`plan` how the chance of a false alarm is shared out. docs/adr/0016 has the alternatives that were measured.
"""

from inferway_registry.judge.counts import Counts as Counts
from inferway_registry.judge.counts import Phase as Phase
from inferway_registry.judge.judge import Finding as Finding
from inferway_registry.judge.judge import Judgement as Judgement
from inferway_registry.judge.judge import Verdict as Verdict
from inferway_registry.judge.judge import judge as judge
from inferway_registry.judge.plan import Drift as Drift
from inferway_registry.judge.plan import Plan as Plan
from inferway_registry.judge.plan import Rate as Rate
