"""What every session store promises, in this process and at a real server."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import AsyncIterator, Coroutine, Iterable
from dataclasses import replace
from typing import Any, TypeVar

import pytest

from inferway.datatypes import Datatype
from inferway.errors import SessionNotFound, SessionTakenOver, TooManyConcurrent
from inferway_gateway.sessions.store import Kept, SessionRecord, SessionStore
from inferway_gateway.tensors import Tensor
from tests.integration.gateway.session_store_beds import SHORT_SECONDS, Bed, MemoryBed, record, redis_bed
from tests.testbed import redis_server

T = TypeVar("T")

WAVE = 500
"""Acts at once: on a busy machine more would not be done in the second after which a gateway gives its store up."""


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.redis)])
async def bed(request: pytest.FixtureRequest) -> AsyncIterator[Bed]:
    """One of each kind."""
    if request.param == "memory":
        yield MemoryBed()
        return
    with redis_server.running() as server:
        async with redis_bed(server) as opened:
            yield opened


async def test_a_claim_returns_what_was_written_last(bed: Bed):
    """The promise of the store: nothing that a client was told is forgotten."""
    one, other = bed.open(), bed.open()
    await one.create(record("a"))
    await one.commit(record("a", applied=1))

    assert await other.claim("a") == replace(record("a", applied=1), epoch=2)

    await other.release(replace(record("a", applied=7), epoch=2), 60)

    assert await one.claim("a") == replace(record("a", applied=7), epoch=3)


async def test_any_state_comes_back_bit_for_bit(bed: Bed):
    """State is what the model made of it: zero bytes, NaNs, strings, no rows at all, names in any script."""
    every_byte = bytes(range(256))
    state = (
        Tensor("h", Datatype.FP64, (1, 32), every_byte),
        Tensor("состояние", Datatype.BYTES, (1, 1), b"\x02\x00\x00\x00\r\n"),
        Tensor("leer", Datatype.INT8, (0, 3), b""),
        Tensor("scalar", Datatype.BF16, (), b"\xc0\x7f"),
    )
    written = replace(record("a"), rows=1, state=state, applied=2**62, kept=(Kept(2**62, every_byte), Kept(5, b"")))
    store = bed.open()

    await store.create(written)

    assert await bed.open().claim("a") == replace(written, epoch=2)


async def test_a_session_may_begin_with_any_epoch_and_name_no_more_than_a_version(bed: Bed):
    """Sequences begin anywhere, so that two of the same id are never taken for one; much of a record has a default."""
    store = bed.open()
    bare = SessionRecord("a", "", "models/m/versions/1", "", epoch=2**62)
    await store.create(replace(bare, epoch=1))

    await store.create(bare)

    assert await store.claim("a") == replace(bare, epoch=2**62 + 1)
    await store.commit(replace(bare, epoch=2**62 + 1, applied=1))


async def test_the_largest_session_fits(bed: Bed):
    """A mebibyte of state and every result that may be unacknowledged."""
    largest = record(
        "a", state_bytes=1 << 20, kept=tuple(Kept(item, bytes([item]) * (256 << 10)) for item in range(32))
    )
    store = bed.open()

    await store.create(largest)
    await store.commit(largest)

    assert (await bed.open().claim("a")).kept == largest.kept


async def test_a_session_that_nobody_began_is_not_found(bed: Bed):
    """A wrong or old token gets an answer that says to begin anew."""
    store = bed.open()

    with pytest.raises(SessionNotFound):
        await store.claim("a")
    with pytest.raises(SessionNotFound):
        await store.commit(record("a"))
    with pytest.raises(SessionNotFound):
        await store.release(record("a"), 60)


async def test_whoever_was_overtaken_can_write_nothing(bed: Bed):
    """A gateway that was frozen while its client went elsewhere must not undo what was done there."""
    frozen, next_one = bed.open(), bed.open()
    await frozen.create(record("a", applied=1))
    await next_one.claim("a")

    with pytest.raises(SessionTakenOver):
        await frozen.commit(record("a", applied=2))
    with pytest.raises(SessionTakenOver):
        await frozen.release(record("a", applied=2), 0)
    await frozen.delete(record("a"))

    assert await next_one.claim("a") == replace(record("a", applied=1), epoch=3)


async def test_a_deleted_session_is_gone_for_its_owner_too(bed: Bed):
    """Nobody brings an ended session back by writing once more."""
    store = bed.open()
    await store.create(record("a"))

    await store.delete(record("a"))

    with pytest.raises(SessionNotFound):
        await store.commit(record("a", applied=1))
    with pytest.raises(SessionNotFound):
        await bed.open().claim("a")


async def test_a_released_session_is_forgotten_after_its_grace(bed: Bed):
    """State of clients that never come back must not pile up."""
    store = bed.open()
    for key in ("short", "long"):
        await store.create(record(key))
    await store.release(record("short"), SHORT_SECONDS)
    await store.release(record("long"), 60)

    await bed.end_of("short")

    with pytest.raises(SessionNotFound):
        await store.claim("short")
    assert (await store.claim("long")).epoch == 2


async def test_a_claim_ends_the_grace(bed: Bed):
    """Who came back in time stays, however long the session goes on."""
    store = bed.open()
    for key in ("claimed", "left"):
        await store.create(record(key))
        await store.release(record(key), SHORT_SECONDS)
        if key == "claimed":
            await store.claim(key)

    await bed.end_of("left")

    await store.commit(replace(record("claimed", applied=1), epoch=2))


async def test_a_full_store_makes_room_by_what_was_released_first(bed: Bed):
    """Clients that left must not keep out those that come; sessions that go on are never given up."""
    store = bed.open(max_sessions=3)
    for key in ("owned", "later", "sooner"):
        await store.create(record(key))
    await store.release(record("later"), 90)
    await store.release(record("sooner"), 30)

    await store.create(record("new"))

    with pytest.raises(SessionNotFound):
        await store.claim("sooner")
    await store.claim("later")
    with pytest.raises(TooManyConcurrent):
        await store.create(record("too many"))
    await store.commit(record("owned", applied=1))
    await store.commit(record("new", applied=1))


async def test_thousands_of_sessions_do_not_mix(bed: Bed):
    """Many are written and read at once; each gets its own back."""
    store, other = bed.open(), bed.open()
    records = [record(f"k{n}", applied=n) for n in range(3000)]

    await in_waves(store.create(each) for each in records)
    await in_waves(store.commit(each) for each in records)
    await store.renew([each.key for each in records])
    claimed = await in_waves(other.claim(each.key) for each in records)

    assert claimed == [replace(each, epoch=2) for each in records]


async def in_waves(acts: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """What they return, WAVE at a time."""
    left, done = iter(acts), list[T]()
    while wave := list(itertools.islice(left, WAVE)):
        done += await asyncio.gather(*wave)
    return done


async def test_of_two_that_claim_at_once_one_owns_the_session(bed: Bed):
    """A client that reconnects in haste has two streams at two gateways for a moment."""
    one, other = bed.open(), bed.open()
    await one.create(record("a"))
    for round_ in range(1, 100):
        first, second = await asyncio.gather(one.claim("a"), other.claim("a"))
        writes = [one.commit(replace(first, applied=round_)), other.commit(replace(second, applied=-round_))]

        outcomes = await asyncio.gather(*writes, return_exceptions=True)

        assert {first.epoch, second.epoch} == {2 * round_, 2 * round_ + 1}
        assert [type(outcome) for outcome in outcomes].count(SessionTakenOver) == 1
        assert outcomes[first.epoch < second.epoch] is None


async def test_no_write_is_lost_however_owners_alternate(bed: Bed):
    """Each write builds on the claim before it; if two owners ever wrote in turns, the count would not come out."""
    stores = [bed.open() for _ in range(4)]
    await stores[0].create(record("a"))
    written: list[int] = []

    async with asyncio.timeout(30):
        await asyncio.gather(*(_write_until_overtaken(n, store, written) for n, store in enumerate(stores)))

    assert set(written) == {0, 1, 2, 3}
    assert (await stores[0].claim("a")).applied == len(written)


async def _write_until_overtaken(owner: int, store: SessionStore, written: list[int]) -> None:
    """Claims again and again; puts its number into `written` whenever it has raised `applied` by one."""
    dice = random.Random(owner)
    while len(written) < 200 or owner not in written:
        held: SessionRecord = await store.claim("a")
        with contextlib.suppress(SessionTakenOver):
            for _ in range(dice.randrange(5)):
                held = replace(held, applied=held.applied + 1)
                await store.commit(held)
                written.append(owner)
                await asyncio.sleep(0)
        for _ in range(dice.randrange(50)):
            await asyncio.sleep(0)


async def test_writes_that_nobody_waits_for_any_more_harm_no_other(bed: Bed):
    """Streams are cancelled all the time; the next must not be given the answer to what they asked."""
    store = bed.open()
    keys = [f"k{n}" for n in range(20)]
    await asyncio.gather(*(store.create(record(key)) for key in keys))
    for round_, given_up in itertools.product(range(1, 6), (0, 1)):
        tasks = [asyncio.create_task(store.commit(record(key, applied=round_))) for key in keys]
        for _ in range(round_):
            await asyncio.sleep(0)
        for task in tasks[given_up::2]:
            task.cancel()

        await asyncio.gather(*tasks[1 - given_up :: 2])

    claims = await asyncio.gather(*(store.claim(key) for key in keys))

    assert claims == [replace(record(key, applied=5), epoch=2) for key in keys]
