"""What a rollout does next: each strategy from its beginning to its ends, and what stops it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from inferway_registry.rollouts import commands, machine
from inferway_registry.rollouts.facts import LISTEN_SECONDS, Pairs, Profile
from inferway_registry.rollouts.outlook import next_words
from inferway_registry.rollouts.rollout import OF_CONTROLLER, OF_GATEWAY, State, Thresholds
from inferway_registry.rollouts.spec import Canary, Judging, OnInconclusive, Step, Strategy
from tests.unit.registry.rollout_facts import (
    BLUE_GREEN,
    CANARY,
    CANDIDATE,
    SHADOW,
    STABLE,
    Controller,
    baking,
    fresh,
    met,
    running,
    spec,
)

ALL = pytest.mark.parametrize("strategy", [CANARY, BLUE_GREEN, SHADOW], ids=["canary", "blue/green", "shadow"])
GOOD = Pairs(100, 100)


def preparing(strategy: Strategy = CANARY) -> Controller:
    """A rollout that prepares."""
    controller = Controller(fresh(spec(strategy)))
    controller.look()
    return controller


def test_a_good_canary_comes_to_all_users_step_by_step():
    """The whole way, with the weights that are published on it."""
    controller = preparing()
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
    controller.confirm()
    assert controller.look() is State.BAKING
    assert controller.look(299.0) is State.BAKING
    assert [arm.number for arm in controller.published] == [2, 1]
    assert controller.look() is State.SUCCEEDED
    assert [arm.number for arm in controller.published] == [2]
    assert [each.weight_basis_points for each in controller.rollout.transitions] == [0, 0, 500, 5000, *[10_000] * 3]


@ALL
def test_nothing_moves_before_workers_have_loaded_the_candidate(strategy: Strategy):
    """Callers would meet a version that is not there."""
    controller = preparing(strategy)
    controller.know(ready_workers=1)
    assert controller.look(599.0) is State.PREPARING
    assert controller.weight == 0
    assert controller.look(2.0) is State.FAILED
    assert controller.rollout.reason == "1 of 2 workers have loaded digits/2 in 10 min. No traffic was moved."
    assert [arm.number for arm in controller.published] == [1]


@pytest.mark.parametrize(
    ("known", "words"),
    [
        ({"load_failure": "out of memory", "ready_workers": 0}, "Workers cannot load digits/2: out of memory"),
        ({"published": False}, "digits/2 was unloaded or deleted."),
    ],
    ids=["it crashes on load", "it is withdrawn"],
)
def test_a_candidate_that_cannot_be_loaded_gets_no_traffic_ever(known: dict[str, object], words: str):
    """Waiting for a load that has failed already helps nobody."""
    controller = preparing()
    controller.know(**known)
    assert controller.look() is State.FAILED
    assert controller.rollout.reason == words
    assert all(each.weight_basis_points == 0 for each in controller.rollout.transitions)


def test_a_stable_version_that_nobody_asks_is_waited_for_and_not_failed():
    """Without answers nobody knows what is slow; at night nobody comes."""
    controller = preparing()
    controller.know(profile=Profile({100: 99}))
    assert controller.look(600.0) is State.PAUSED
    assert controller.rollout.reason.startswith("no data: digits/1 gave 99 answers while it was watched")


def test_a_baseline_may_take_longer_than_a_load():
    """Somebody wants to see an hour of the stable version: that is no reason to give up."""
    controller = Controller(fresh(replace(spec(), baseline_seconds=3600.0)))
    controller.look()
    controller.know(profile=Profile())
    assert controller.look(3599.0) is State.PREPARING
    assert controller.look(1.0) is State.PAUSED


def test_workers_that_are_not_known_are_silence_and_no_failure():
    """After a restart of the registry its clock may be far beyond every deadline before the first worker reports."""
    controller = preparing()
    controller.know(needed_workers=0, ready_workers=0)
    assert controller.look(10_000.0) is State.PAUSED
    assert controller.rollout.reason.startswith("no data: ")


def test_thresholds_are_frozen_with_the_first_step():
    """They are what the stable version was: it may itself get worse under the rollout."""
    controller = running()
    frozen = controller.rollout.thresholds
    assert frozen is not None
    assert (frozen.p95_us, frozen.p99_us, len(frozen.edges["scores"])) == (5683, 15080, 9)
    controller.know(profile=Profile({300: 10_000}))
    controller.look()
    assert controller.rollout.thresholds is frozen


def harmed(controller: Controller) -> None:
    """The candidate fails a tenth of its units, the stable version none."""
    controller.count(met(5700), met(300, INTERNAL=30))


def test_harm_rolls_back_at_once():
    """Before the step is over, with the judge's reason, and nothing that comes later changes it."""
    controller = running()
    harmed(controller)
    assert controller.look() is State.ROLLING_BACK
    assert controller.weight == 0
    assert controller.rollout.reason.startswith("The candidate does harm. errors: the candidate had 30 of 30")
    assert controller.look() is State.ROLLING_BACK
    controller.confirm()
    assert controller.look() is State.ROLLED_BACK
    assert controller.rollout.reason.startswith("The candidate does harm.")
    assert [arm.number for arm in controller.published] == [1]


def test_harm_rolls_back_while_it_is_paused_too():
    """Nobody may be at the desk."""
    controller = running()
    controller.store(commands.pause(controller.rollout, controller.facts.now, "ann"))
    harmed(controller)
    assert controller.look() is State.ROLLING_BACK


def test_harm_that_is_reported_late_ends_a_bake():
    """A gateway that was cut off tells of the step before."""
    controller = running()
    step = controller.generation
    controller.store(commands.promote(controller.rollout, controller.facts.now, "ann", full=True))
    controller.confirm()
    assert controller.look() is State.BAKING
    controller.know(counts={step: (met(5700), met(300, INTERNAL=30))})
    assert controller.look() is State.ROLLING_BACK


@ALL
@pytest.mark.parametrize(
    ("known", "reason"),
    [
        ({"published": False}, "digits/2 was unloaded or deleted."),
        ({"load_failure": "crashed"}, "Workers cannot load digits/2: crashed"),
    ],
)
def test_a_candidate_that_is_gone_is_rolled_back(strategy: Strategy, known: dict[str, object], reason: str):
    """Crashed on every worker, or withdrawn."""
    controller = running(strategy)
    controller.know(**known)
    assert controller.look() is State.ROLLING_BACK
    assert controller.rollout.reason == reason


def test_a_brake_rolls_back_in_the_name_of_the_gateway():
    """The registry does not argue: it may have seen less."""
    controller = running()
    controller.know(brake="errors: 11 of 20 units of the candidate failed")
    assert controller.look() is State.ROLLING_BACK
    made = controller.rollout.transitions[-1]
    assert (made.principal, made.reason) == (
        OF_GATEWAY,
        "A gateway has stopped it: errors: 11 of 20 units of the candidate failed",
    )


def test_a_wrong_split_pauses():
    """Counts mislead, for and against."""
    controller = running()
    controller.count(met(3000), met(1000))
    assert controller.look() is State.PAUSED
    assert controller.rollout.reason.startswith("srm: Units do not reach the arms as assigned.")
    assert controller.weight == 500


@pytest.mark.parametrize(
    ("wanted", "state"),
    [(OnInconclusive.PAUSE, State.PAUSED), (OnInconclusive.ROLL_BACK, State.ROLLING_BACK)],
)
def test_a_step_that_sees_too_little_has_four_times_its_time(wanted: OnInconclusive, state: State):
    """Then it does what was asked for; by default it waits for a person."""
    controller = Controller(fresh(replace(spec(), on_inconclusive=wanted)))
    controller.look()
    controller.look(30.0)
    controller.count(met(5681), met(299))
    assert controller.look(239.0) is State.RUNNING
    assert controller.look(1.0) is state
    assert controller.rollout.reason.startswith(
        "no data: nothing could be said in 4 min. Too little was seen. units: the candidate has met 299 of the 300"
    )


def test_a_short_step_waits_a_minute_for_users_all_the_same():
    """Steps of five seconds are for trying out; twenty seconds are too short for anybody to send 300 units."""
    controller = Controller(fresh(spec(Canary((Step(500, 5.0),)))))
    controller.look()
    controller.look(30.0)
    assert controller.look(59.0) is State.RUNNING
    assert controller.look(1.0) is State.PAUSED


def test_a_step_counts_its_own_units():
    """Those of the step before say nothing about these weights."""
    controller = running()
    controller.count(met(5700), met(300))
    controller.look(60.0)
    assert controller.rollout.step == 1
    assert controller.look(239.0) is State.RUNNING
    assert controller.look(1.0) is State.PAUSED


def test_gateways_that_do_not_report_promote_nobody():
    """Metrics that went silent are no good news, whatever was counted before."""
    controller = running()
    controller.count(met(5700), met(300))
    controller.know(gateways=0)
    assert controller.look(239.0) is State.RUNNING
    assert controller.look(1.0) is State.PAUSED
    assert controller.rollout.reason == "no data: nothing could be said in 4 min. No gateway reports."
    assert controller.weight == 500


@pytest.mark.parametrize("strategy", [BLUE_GREEN, SHADOW], ids=["blue/green", "shadow"])
def test_pairs_of_gateways_that_do_not_report_any_more_end_nothing(strategy: Strategy):
    """The same where copies are compared: what came since is not known."""
    controller = running(strategy)
    controller.copied(CANDIDATE, GOOD)
    controller.know(gateways=0)
    assert controller.look(239.0) is State.RUNNING
    assert controller.look(361.0) is State.PAUSED
    assert controller.rollout.reason.endswith("No gateway reports.")


def test_a_bake_does_not_end_while_nobody_reports():
    """The version before would be let go while its successor may be failing."""
    controller = baking(CANARY)
    controller.know(gateways=0)
    assert controller.look(1199.0) is State.BAKING
    assert controller.look(1.0) is State.PAUSED
    assert controller.weight == 10_000


def test_proof_that_was_asked_for_is_needed_by_the_last_step_alone():
    """Only there are there users enough."""
    asked = replace(spec(), judging=Judging(errors_not_inferior=2.0))
    controller = Controller(fresh(asked))
    controller.look()
    controller.look(30.0)
    controller.count(met(5700, INTERNAL=19), met(300, INTERNAL=1))
    controller.look(60.0)
    assert controller.rollout.step == 1
    controller.count(met(3000, INTERNAL=10), met(3000, INTERNAL=10))
    assert controller.look(60.0) is State.RUNNING
    controller.count(met(30_000, INTERNAL=200), met(30_000, INTERNAL=200))
    assert controller.look() is State.PROMOTING


def test_the_slowest_gateway_is_waited_for():
    """Else the bake would begin while some users still get the version before."""
    controller = running()
    controller.store(commands.promote(controller.rollout, controller.facts.now, "ann", full=True))
    controller.know(generation=controller.generation - 1)
    assert controller.look(14.0) is State.PROMOTING
    assert controller.look(1.0) is State.BAKING
    assert controller.rollout.reason.startswith("Not every gateway has said so in time")


def test_nobody_is_waited_for_after_fifteen_seconds():
    """A gateway that is cut off from the registry would hold a rollback for ever."""
    controller = running()
    controller.store(commands.abort(controller.rollout, controller.facts.now, "ann"))
    controller.confirm()
    controller.know(gateways=0)
    assert controller.look(14.0) is State.ROLLING_BACK
    assert controller.look(1.0) is State.ROLLED_BACK


def test_weights_that_are_not_published_yet_are_confirmed_by_nobody():
    """All gateways route by the weights before: that is no news of these."""
    controller = running()
    aborted = commands.abort(controller.rollout, controller.facts.now, "ann")
    assert machine.step(aborted, controller.facts) is aborted


def test_blue_green_switches_all_users_at_once_and_keeps_the_way_back():
    """One revision there, one revision back."""
    controller = running(BLUE_GREEN)
    assert controller.weight == 0
    assert controller.look(100.0) is State.RUNNING
    controller.copied(CANDIDATE, GOOD)
    assert controller.look() is State.PROMOTING
    assert controller.weight == 10_000
    controller.confirm()
    assert controller.look() is State.BAKING
    generation = controller.generation
    controller.store(commands.abort(controller.rollout, controller.facts.now, "ann", "too dear"))
    assert (controller.weight, controller.generation) == (0, generation + 1)
    assert controller.rollout.reason == "Aborted: too dear"


def test_blue_green_does_not_switch_to_a_version_that_answers_otherwise():
    """It may be meant to: a person decides, and may promote it all the same."""
    controller = running(BLUE_GREEN)
    controller.copied(CANDIDATE, Pairs(200, 150))
    assert controller.look() is State.PAUSED
    words = "digits/2 answers otherwise. 150 of 200 pairs agree: between 63.7 % and 84.4 % do"
    assert controller.rollout.reason.startswith(words)
    controller.store(commands.promote(controller.rollout, controller.facts.now, "ann"))
    assert controller.weight == 10_000
    assert controller.look() is State.PROMOTING


def test_a_few_pairs_that_differ_do_not_stop_blue_green():
    """Only what is proven does; 95 of 100 may come of 98 %."""
    controller = running(BLUE_GREEN)
    controller.copied(CANDIDATE, Pairs(100, 96))
    assert controller.look() is State.PROMOTING


@pytest.mark.parametrize("switched", [False, True])
def test_pairs_that_only_the_candidate_fails_roll_blue_green_back(switched: bool):
    """Before the switch the copies fail, after it the users' requests, whose copies the old version answers."""
    controller = baking() if switched else running(BLUE_GREEN)
    of = STABLE if switched else CANDIDATE
    bad = Pairs(200, 180, primary_errors=10) if switched else Pairs(200, 180, mirrored_errors=10)
    good = Pairs(200, 180, mirrored_errors=10) if switched else Pairs(200, 196, primary_errors=4)
    state = controller.rollout.state
    controller.copied(of, good)
    assert controller.look() is (State.BAKING if switched else State.PROMOTING)
    controller = baking() if switched else running(BLUE_GREEN)
    controller.copied(of, bad)
    assert controller.rollout.state is state
    assert controller.look() is State.ROLLING_BACK
    assert controller.rollout.reason.startswith("The candidate does harm. errors: the candidate had 10 of 10")


def test_blue_green_without_copies_waits_for_a_person():
    """An endpoint that nobody asks is not switched by itself."""
    controller = running(BLUE_GREEN)
    controller.copied(CANDIDATE, Pairs(99, 99))
    assert controller.look(599.0) is State.RUNNING
    assert controller.look(1.0) is State.PAUSED
    assert "99 of the 100 pairs needed were compared" in controller.rollout.reason


@pytest.mark.parametrize(
    ("pairs", "state", "words"),
    [
        (Pairs(1000, 1000), State.SUCCEEDED, "Verdict: agrees. "),
        (Pairs(1000, 900), State.FAILED, "Verdict: differs. "),
        (Pairs(100, 100), State.SUCCEEDED, "Verdict: undecided. "),
        (Pairs(200, 100, mirrored_errors=100), State.FAILED, "Verdict: fails. "),
    ],
    ids=["agrees", "differs", "not decided", "fails"],
)
def test_a_shadow_ends_with_its_comparison_and_moves_nothing(pairs: Pairs, state: State, words: str):
    """Users noticed nothing; whoever asks must not take a version that differs for one that passed."""
    controller = running(SHADOW)
    controller.copied(CANDIDATE, replace(pairs, primary_latency={100: 5}, mirrored_latency={110: 5}))
    assert controller.look(58.0) is State.RUNNING
    assert controller.look(2.0) is state
    assert controller.rollout.reason.startswith(words)
    assert "No harm" not in controller.rollout.reason
    assert "p95: 1.31 ms before, 2.14 ms now. No traffic was moved." in controller.rollout.reason
    assert [arm.number for arm in controller.published] == [1]
    assert all(each.weight_basis_points == 0 for each in controller.rollout.transitions)


@pytest.mark.parametrize(("failed", "words"), [(0, "99 of the 100 pairs needed were compared"), (99, "does harm")])
def test_a_shadow_with_too_few_copies_pauses(failed: int, words: str):
    """It has little to say yet, and says what; also if that is bad."""
    controller = running(SHADOW)
    controller.copied(CANDIDATE, Pairs(99, 99 - failed, mirrored_errors=failed))
    assert controller.look(239.0) is State.RUNNING
    assert controller.look(1.0) is State.PAUSED
    assert words in controller.rollout.reason


@ALL
def test_a_rollout_that_has_ended_stays_as_it_is(strategy: Strategy):
    """Whatever is reported afterwards."""
    controller = running(strategy)
    controller.store(commands.abort(controller.rollout, controller.facts.now, "ann"))
    controller.confirm()
    controller.look()
    ended = controller.rollout
    harmed(controller)
    controller.know(brake="late", published=False)
    controller.look(1000.0)
    assert controller.rollout is ended


def test_only_the_controller_acts_where_nobody_asked():
    """The history says who did what."""
    controller = running()
    assert [each.principal for each in controller.rollout.transitions] == ["ann", OF_CONTROLLER, OF_CONTROLLER]


def test_a_clock_that_is_set_back_ends_no_wait():
    """And none that is over begins again: time since the step counts from 0."""
    controller = running()
    controller.count(met(5700), met(300))
    assert controller.look(-1000.0) is State.RUNNING
    assert controller.rollout.step == 0
    assert controller.look(1060.0) is State.RUNNING
    assert controller.rollout.step == 1


def test_a_rollout_without_a_baseline_is_judged_by_errors_alone():
    """Somebody has promoted it before there were answers."""
    controller = preparing()
    controller.know(profile=Profile())
    controller.store(commands.promote(controller.rollout, controller.facts.now, "ann"))
    assert controller.look() is State.RUNNING
    assert controller.rollout.thresholds == Thresholds()
    controller.count(met(5700), met(300, above_p95=300))
    assert controller.look() is State.RUNNING
    harmed(controller)
    assert controller.look() is State.ROLLING_BACK


@pytest.mark.parametrize("wanted", OnInconclusive)
@ALL
def test_a_registry_that_was_away_hears_everybody_before_it_gives_up(strategy: Strategy, wanted: OnInconclusive):
    """While it was down nobody could tell it anything: its own absence is no silence of users."""
    controller = running(strategy)
    controller.store(replace(controller.rollout, spec=replace(controller.rollout.spec, on_inconclusive=wanted)))
    controller.know(gateways=0, listened_seconds=0.0)
    assert controller.look(10_000.0) is State.RUNNING

    controller.know(listened_seconds=LISTEN_SECONDS)

    assert controller.look() in {State.PAUSED, State.ROLLING_BACK}


def test_the_first_worker_that_reports_speaks_for_no_other():
    """One that could not load what all others have must not end a rollout because the registry was restarted."""
    controller = running()
    controller.know(load_failure="no space left", listened_seconds=1.0)
    assert controller.look() is State.RUNNING
    controller.know(listened_seconds=LISTEN_SECONDS)
    assert controller.look() is State.ROLLING_BACK


def test_preparing_does_not_fail_by_the_clock_of_a_registry_that_was_away():
    """The time for loading has passed, but nobody could say that the candidate was loaded."""
    controller = preparing()
    controller.know(needed_workers=2, ready_workers=1, listened_seconds=1.0)
    assert controller.look(10_000.0) is State.PREPARING
    controller.know(listened_seconds=LISTEN_SECONDS)
    assert controller.look() is State.FAILED


@pytest.mark.parametrize("strategy", [CANARY, BLUE_GREEN], ids=["canary", "blue/green"])
def test_nothing_goes_on_while_no_worker_has_the_candidate(strategy: Strategy):
    """The counts of before may be enough, and everybody would be sent to a version that is being loaded again."""
    controller = running(strategy)
    controller.count(met(5700), met(300))
    controller.copied(CANDIDATE, GOOD)
    controller.know(ready_workers=0, holders=0)
    assert controller.look(60.0) is State.RUNNING
    assert controller.rollout.step == 0
    assert controller.weight == (500 if strategy is CANARY else 0)
    assert next_words(controller.rollout, controller.facts).startswith("Waits until a worker has digits/2 ready. ")

    controller.know(ready_workers=1, holders=1)
    controller.look()
    assert controller.weight == (5000 if strategy is CANARY else 10_000)


def test_a_bake_does_not_let_the_stable_version_go_while_no_worker_has_the_other():
    """Workers would unload the only version that anybody can be given."""
    controller = baking()
    controller.know(ready_workers=0, holders=0)
    assert controller.look(300.0) is State.BAKING
    assert controller.look(900.0) is State.PAUSED
    assert "No worker has the candidate ready." in controller.rollout.reason
