"""What a dispatcher does with workers that fail, fall silent or are killed by what they are sent."""

from __future__ import annotations

from inferway.errors import InvalidField, ModelFailed, Quarantined, RunnerCrashed, VersionNotReady, WorkerLost
from inferway_gateway.forecast import Speed
from inferway_gateway.lane import MAX_UNANSWERED, Flight, Lane
from inferway_gateway.poison import REMEMBERED_SECONDS
from inferway_gateway.retries import pause_before
from inferway_gateway.roster import EJECTION_SECONDS, JITTER, REMOTE_IN_A_ROW, SLOW_START_SECONDS, Breaker
from inferway_gateway.tensors import Tensor
from inferway_gateway.workers import Worker
from tests.unit.gateway.bench import V1, Bench
from tests.unit.gateway.builders import envelope, version


def pair(bench: Bench, rows: int = 100) -> tuple[Lane, Lane]:
    """Two workers that have been ready for long enough to be trusted fully."""
    lanes = (bench.open_lane(rows, Worker("w0")), bench.open_lane(rows, Worker("w1")))
    bench.now = 2 * SLOW_START_SECONDS
    return lanes


def sent(bench: Bench, content: bytes = b"\0" * 16, deadline: float = 60.0, *, idempotent: bool = True) -> Flight:
    """A request with its own content, submitted."""
    made = envelope(version(idempotent=idempotent), deadline=deadline)
    made.inputs = [Tensor("x", made.inputs[0].datatype, (1, 4), content)]
    made.received_at = bench.now
    return bench.dispatcher.submit(made)


def outcome(flight: Flight) -> BaseException | None:
    """What ended it."""
    return flight.result.exception()


async def test_an_ejected_worker_gets_nothing_until_one_request_has_tried_it() -> None:
    """Five bad answers in a row: others answer meanwhile, and one caller at most finds out whether it is better."""
    bench = Bench()
    one, two = pair(bench)
    for _ in range(REMOTE_IN_A_ROW):
        bench.fail(sent(bench), ModelFailed("broken here"))
    meanwhile = [sent(bench) for _ in range(4)]
    bench.now += EJECTION_SECONDS * (1 + JITTER)
    trial, beside = sent(bench), sent(bench)
    bench.answer(trial)
    [(_, pool)] = bench.dispatcher.pools()

    assert {flight.lane for flight in meanwhile} == {two}
    assert trial.result.result()
    assert beside.lane is two
    assert pool.roster.members[one.worker].breaker is Breaker.CLOSED


async def test_a_trial_that_its_caller_gave_up_is_followed_by_another() -> None:
    """Else a worker would stay ejected for ever because somebody hung up."""
    bench = Bench()
    one, _ = pair(bench)
    for _ in range(REMOTE_IN_A_ROW):
        bench.fail(sent(bench), ModelFailed("broken here"))
    bench.now += EJECTION_SECONDS * (1 + JITTER)
    trial = sent(bench)
    tried = trial.lane
    bench.dispatcher.abandon(trial)

    assert tried is one
    assert sent(bench).lane is one


async def test_the_requests_own_faults_eject_nobody() -> None:
    """A caller that sends nonsense must not take workers away from the others."""
    bench = Bench()
    one, _ = pair(bench)
    for _ in range(50):
        bench.fail(sent(bench), InvalidField("not so"))

    assert sent(bench).lane is one


async def test_a_worker_that_lets_deadlines_pass_is_an_outlier() -> None:
    """It answers signs of life and nothing else."""
    bench = Bench()
    _, two = pair(bench)
    for _ in range(REMOTE_IN_A_ROW):
        sent(bench)
        bench.loop.timers[-1].fire()

    assert sent(bench).lane is two


async def test_what_a_silent_worker_holds_is_repeated_elsewhere_at_once() -> None:
    """Its links are up and will be for a long time; nobody waits for them."""
    bench = Bench()
    one, two = pair(bench)
    flight = sent(bench)
    one.take_frame()
    bench.dispatcher.fell_silent(one.worker)
    newer = sent(bench)

    assert (flight.lane, flight.attempt, newer.lane) == (two, 2, two)
    assert one.take_frame().cancelled == [1]


async def test_what_may_have_taken_effect_stays_with_a_silent_worker() -> None:
    """It may still be answered there, and must not be computed twice."""
    bench = Bench()
    one, two = pair(bench)
    written = sent(bench, idempotent=False)
    one.take_frame()
    bench.dispatcher.submit(envelope(rows=5, deadline=60.0))
    unwritten = sent(bench, idempotent=False)
    bench.dispatcher.fell_silent(one.worker)

    assert (written.lane, written.attempt) == (one, 1)
    assert (unwritten.lane, unwritten.attempt) == (two, 1)


async def test_a_lone_silent_worker_keeps_what_it_has_and_what_is_new_waits_for_it() -> None:
    """Nobody else could answer; a worker that merely stood still for a moment goes on."""
    bench = Bench()
    one = bench.open_lane()
    held = sent(bench)
    one.take_frame()
    bench.dispatcher.fell_silent(one.worker)
    new = sent(bench)
    waiting = (held.lane, new.lane)
    bench.dispatcher.spoke_again(one.worker)
    bench.answer(held)

    assert waiting == (one, None)
    assert new.lane is one
    assert held.result.result()


async def test_an_answer_is_a_sign_of_life() -> None:
    """It need not be asked any more, and what waits for it goes at once."""
    bench = Bench()
    one = bench.open_lane()
    held = sent(bench)
    one.take_frame()
    bench.dispatcher.fell_silent(one.worker)
    new = sent(bench)
    bench.answer(held)

    assert (new.lane, one.worker.is_silent) == (one, False)


async def test_a_worker_that_speaks_again_begins_slowly() -> None:
    """What froze once is asked for less at first."""
    bench = Bench()
    one, two = pair(bench)
    bench.dispatcher.fell_silent(one.worker)
    bench.dispatcher.spoke_again(one.worker)

    assert {sent(bench).lane for _ in range(5)} == {two}


async def test_everybody_aboard_a_crashed_runner_is_repeated_alone_and_only_the_guilty_is_refused() -> None:
    """Together they would crash the next runner together, and nobody could tell who did it."""
    bench = Bench()
    lanes = pair(bench)
    crowd = [sent(bench, content) for content in (b"a" * 16, b"POISON 16 bytes!", b"b" * 16)]
    bench.now += 0.1
    for flight in crowd:
        bench.fail(flight, RunnerCrashed("gone"))
    out_at_once = []
    while any(not flight.result.done() for flight in crowd):
        bench.now += 0.1
        out = [flight for flight in crowd if flight.lane is not None]
        out_at_once.append(len(out))
        for flight in out:
            guilty = flight is crowd[1]
            bench.fail(flight, RunnerCrashed("gone again")) if guilty else bench.answer(flight)

    assert out_at_once == [1, 1, 1]
    assert isinstance(outcome(crowd[1]), Quarantined)
    assert [outcome(crowd[0]), outcome(crowd[2])] == [None, None]
    assert sum(map(len, lanes)) == 0


async def test_who_was_beside_the_guilty_both_times_is_answered_at_the_third_attempt() -> None:
    """Popular requests are soon acquitted, and may then be aboard with a suspect once more."""
    bench = Bench()
    pair(bench)
    crowd = [sent(bench), sent(bench), sent(bench, b"POISON 16 bytes!")]
    bench.now += 0.1
    for flight in crowd:
        bench.fail(flight, RunnerCrashed("gone"))
    bench.now += 0.1
    bench.answer(crowd[0])
    bench.now += 0.1
    aboard = [flight for flight in crowd if flight.lane is not None]
    for flight in reversed(aboard):
        bench.fail(flight, RunnerCrashed("gone again"))
    bench.now += 0.1
    bench.answer(crowd[1])

    assert aboard == crowd[1:]
    assert crowd[1].attempt == 3
    assert isinstance(outcome(crowd[2]), Quarantined)
    assert crowd[1].result.result()


async def test_a_convicted_request_is_refused_at_the_door_for_ten_minutes() -> None:
    """Whoever sends it, and however often; anything else is let in."""
    bench = Bench()
    pair(bench)
    poison = sent(bench)
    for _ in range(2):
        bench.now += 0.1
        bench.fail(poison, RunnerCrashed("gone"))
    told: list[object] = []
    for wait in (0.0, REMEMBERED_SECONDS - 1.0, 2.0):
        bench.now += wait
        try:
            told.append(sent(bench, deadline=bench.now + 9).lane is not None)
        except Quarantined as refusal:
            told.append(refusal.reason)

    assert told == ["QUARANTINED", "QUARANTINED", True]
    assert sent(bench, b"another content!", deadline=bench.now + 9).lane is not None


async def test_who_asked_the_same_at_the_same_time_is_not_convicted_of_two_crashes() -> None:
    """Popular requests are everywhere; two runners that end at once prove nothing against them."""
    bench = Bench()
    pair(bench)
    both = [sent(bench), sent(bench)]
    bench.now += 1.0
    for flight in both:
        bench.fail(flight, RunnerCrashed("gone"))
    bench.now += 1.0
    alone = [flight for flight in both if flight.lane is not None]
    bench.answer(alone[0])
    for flight in both:
        if flight.lane is not None:
            bench.answer(flight)

    assert len(alone) == 1
    assert [outcome(flight) for flight in both] == [None, None]
    assert not bench.dispatcher.guard.known


async def test_a_worker_that_has_convicted_a_request_is_believed() -> None:
    """Else it would walk to the next worker."""
    bench = Bench()
    pair(bench)
    bench.fail(sent(bench), Quarantined("no more"))

    try:
        sent(bench)
    except Quarantined:
        return
    raise AssertionError("it was let in")


async def test_the_first_retry_is_immediate_and_later_ones_pause() -> None:
    """A2: what failed twice is not helped by haste."""
    pauses = [pause_before(attempt, lambda: 0.5) for attempt in (1, 2, 3, 4, 9)]

    assert pauses == [0.0, 0.0, 0.05, 0.1, 0.25]


async def test_a_request_that_pauses_goes_on_afterwards() -> None:
    """And ends at its deadline all the same."""
    bench = Bench()
    for _ in range(2):
        lane = bench.open_lane(worker=Worker("w"))
        if not bench.dispatcher.pools()[0][1].queue.items and not len(lane):
            flight = sent(bench)
        lane.take_frame()
        bench.dispatcher.lost(lane)
    third = bench.open_lane(worker=Worker("w"))
    pausing = flight.lane
    bench.loop.timers[-1].fire()
    bound = flight.lane
    bench.loop.timers[-1].fire()
    bench.loop.timers[-1].fire()

    assert (pausing, bound) == (None, third)
    assert outcome(flight) is not None


async def test_of_many_workers_the_better_of_two_is_taken() -> None:
    """Asking two is nearly as good as asking all, and costs the same however many there are."""
    bench = Bench()
    lanes = [bench.open_lane(rows=1000, worker=Worker(f"w{n}")) for n in range(20)]
    for _ in range(2000):
        sent(bench)
    counts = sorted(map(len, lanes))

    assert sum(counts) == 2000
    assert counts[-1] - counts[0] <= 10  # of one choice alone it would be about forty


async def test_when_neither_of_two_has_room_all_are_asked() -> None:
    """A credit anywhere is used."""
    bench = Bench()
    for n in range(20):
        bench.open_lane(rows=0, worker=Worker(f"w{n}"))
    only = bench.open_lane(rows=100, worker=Worker("free"))

    assert {sent(bench).lane for _ in range(20)} == {only}


async def test_a_worker_cannot_grant_more_than_the_gateway_dares_to_lose() -> None:
    """Credits are the worker's word; this bound is the gateway's own."""
    bench = Bench(max_items=10)
    one = bench.open_lane(rows=10 * MAX_UNANSWERED)
    for _ in range(MAX_UNANSWERED):
        bench.dispatcher.submit(envelope())

    assert sent(bench).lane is None
    assert len(one) == MAX_UNANSWERED


async def test_a_slow_worker_gets_fewer_rows() -> None:
    """The wait is what counts, not the number of rows."""
    bench = Bench()
    quick, slow = pair(bench)
    for lane, rate in ((quick, 300.0), (slow, 100.0)):
        lane.worker.speeds[V1] = Speed(rate, 0.0, 1e6 / rate)
    bench.now += 1.0
    for _ in range(40):
        sent(bench)

    assert (len(quick), len(slow)) == (30, 10)


async def test_a_lost_worker_ends_what_must_not_be_repeated() -> None:
    """Unlike one that is silent: nobody will answer it any more."""
    bench = Bench()
    one, _ = pair(bench)
    flight = sent(bench, idempotent=False)
    one.take_frame()
    bench.dispatcher.lost(one)

    assert isinstance(outcome(flight), WorkerLost)


async def test_a_trial_whose_link_is_lost_is_followed_by_another() -> None:
    """The worker has other links, and would stay ejected for ever on those."""
    bench = Bench()
    one, _ = pair(bench)
    bench.open_lane(worker=one.worker)
    for _ in range(REMOTE_IN_A_ROW):
        bench.fail(sent(bench), ModelFailed("broken here"))
    bench.now += EJECTION_SECONDS * (1 + JITTER)
    trial = sent(bench)
    tried = trial.lane
    assert tried is not None
    bench.dispatcher.lost(tried)
    following = sent(bench).lane

    assert following is not None
    assert tried.worker is following.worker is one.worker


async def test_a_refusal_is_a_sign_of_life() -> None:
    """The worker's other versions are served at once; only the one it refuses waits for its next hello."""
    bench = Bench()
    one = bench.open_lane()
    other = version(2)
    bench.dispatcher.set_ready(one, [V1, other.name])
    held = sent(bench)
    one.take_frame()
    bench.dispatcher.fell_silent(one.worker)
    bench.fail(held, VersionNotReady("not now"))

    assert not one.worker.is_silent
    assert one.ready == {other.name}
