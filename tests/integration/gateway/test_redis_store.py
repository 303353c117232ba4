"""Redis as it is in the field: it goes away and comes back, stalls, fills up, and others write there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from dataclasses import replace

import pytest

from inferway.errors import SessionNotFound, SessionStoreUnavailable, SessionTakenOver
from inferway_gateway.sessions.redis_script import PREFIX, SCRIPT
from inferway_gateway.sessions.redis_store import RedisSessionStore
from tests.integration.gateway.session_store_beds import SHORT_SECONDS, RedisBed, record, redis_bed
from tests.testbed import redis_server

pytestmark = pytest.mark.redis


@pytest.fixture
async def bed() -> AsyncIterator[RedisBed]:
    """A server of its own for each test: most of them break it."""
    with redis_server.running() as server:
        async with redis_bed(server) as opened:
            yield opened


async def outcomes_of(acts: list[Awaitable[None]]) -> set[type]:
    """What became of them, by type; raises if one hangs."""
    async with asyncio.timeout(10):
        return {type(outcome) for outcome in await asyncio.gather(*acts, return_exceptions=True)}


async def test_a_session_outlives_its_gateway_by_the_lease(bed: RedisBed):
    """After a crash the client has that long to come back; then the state is given up."""
    gateway = bed.open(lease_seconds=SHORT_SECONDS)
    await gateway.create(record("a"))

    await bed.end_of("a")

    with pytest.raises(SessionNotFound):
        await bed.open().claim("a")


async def test_an_owner_keeps_its_sessions_by_renewing_them(bed: RedisBed):
    """An idle stream writes nothing for hours; what is not ours any more is left alone."""
    gateway, other = bed.open(), bed.open()
    for key in ("owned", "released", "taken"):
        await gateway.create(record(key))
        await bed.redis.pexpire(PREFIX + key, 5000)
    await gateway.release(record("released"), 5)
    await other.claim("taken")
    await bed.redis.pexpire(PREFIX + "taken", 5000)

    await gateway.renew(["owned", "released", "taken", "unknown"])

    lives = {key: await bed.life_of(key) for key in ("owned", "released", "taken")}
    assert lives["owned"] > 50
    assert max(lives["released"], lives["taken"]) <= 5


async def test_a_stream_that_was_overtaken_here_does_not_end_the_renewal(bed: RedisBed):
    """A client that reconnects to the same gateway: its old stream gives up after its new one has begun."""
    gateway = bed.open()
    await gateway.create(record("a"))
    await gateway.claim("a")
    with pytest.raises(SessionTakenOver):
        await gateway.release(record("a"), 5)
    await bed.redis.pexpire(PREFIX + "a", 5000)

    await gateway.renew(["a"])

    assert await bed.life_of("a") > 50


async def test_a_session_that_begins_again_under_its_old_name_is_renewed(bed: RedisBed):
    """A sequence that was lost and started anew has another epoch, maybe a lower one."""
    gateway = bed.open()
    await gateway.create(replace(record("a"), epoch=1000))
    await gateway.create(record("a"))
    await bed.redis.pexpire(PREFIX + "a", 5000)

    await gateway.renew(["a"])

    assert await bed.life_of("a") > 50


async def test_every_write_renews(bed: RedisBed):
    """A busy session must not depend on a timer."""
    gateway = bed.open()
    await gateway.create(record("a"))
    await bed.redis.pexpire(PREFIX + "a", 5000)

    await gateway.commit(record("a", applied=1))

    assert await bed.life_of("a") > 50


async def test_a_write_that_arrives_after_its_successor_changes_nothing(bed: RedisBed):
    """What was given up on a connection that broke may still be on its way when the next connection is in use."""
    gateway = bed.open()
    await gateway.create(record("a"))
    await gateway.commit(record("a", applied=2))

    late = (b"write", b"1", b"1", b"from the past", b"60000")
    answers = await bed.redis.eval(SCRIPT, 1, PREFIX + "a", *late)

    assert answers == [1]
    assert (await gateway.claim("a")).applied == 2


async def test_what_is_given_up_before_it_is_sent_never_happens(bed: RedisBed):
    """A stream that is gone must not take its session from the one that its client has opened since."""
    gateway = bed.open()
    await gateway.create(record("a"))

    claim = asyncio.create_task(gateway.claim("a"))
    await asyncio.sleep(0)
    claim.cancel()

    assert (await gateway.claim("a")).epoch == 2


async def test_one_script_is_sent_once(bed: RedisBed):
    """A commit carries its record, not the program; a server that lost the script is taught again."""
    gateway = bed.open()
    await gateway.create(record("a"))
    await gateway.commit(record("a", applied=1))
    assert await sent(bed, "eval") == 1

    await bed.redis.script_flush()
    await gateway.commit(record("a", applied=2))

    assert await sent(bed, "eval") == 2
    assert (await gateway.claim("a")).applied == 2


async def test_what_is_written_at_once_goes_as_one_command(bed: RedisBed):
    """Round trips and parsing are most of a commit; hundreds of sessions share them."""
    gateway = bed.open()
    records = [record(f"k{n}") for n in range(200)]
    await asyncio.gather(*(gateway.create(each) for each in records))
    before = await sent(bed, "evalsha")

    await asyncio.gather(*(gateway.commit(each) for each in records))

    assert await sent(bed, "evalsha") == before + 1


async def sent(bed: RedisBed, command: str) -> int:
    """How often the server has got the command."""
    stats = await bed.redis.info("commandstats")
    return int(stats.get(f"cmdstat_{command}", {}).get("calls", 0))


async def test_a_server_that_restarts_is_used_again(bed: RedisBed, caplog: pytest.LogCaptureFixture):
    """Sessions begin again as soon as there is a store; one line says that it went, one that it came."""
    caplog.set_level("INFO")
    gateway = bed.open()
    await gateway.create(record("a"))

    bed.server.kill()
    assert await outcomes_of([gateway.commit(record("a")) for _ in range(100)]) == {SessionStoreUnavailable}
    assert await outcomes_of([gateway.delete(record("a")), gateway.create(record("b"))]) == {SessionStoreUnavailable}
    bed.server.start()

    with pytest.raises(SessionNotFound):
        await gateway.commit(record("a"))
    await gateway.create(record("b"))
    assert [line for line in caplog.messages if "session store" in line] == [
        "the session store fails",
        "the session store is back",
    ]


async def test_a_primary_that_became_a_replica_is_left_for_its_successor(bed: RedisBed):
    """After a failover the address leads to another server, while the old connection is still up."""
    gateway = bed.open()
    await gateway.create(record("a"))
    with redis_server.running() as successor:
        await bed.redis.replicaof("127.0.0.1", 1)
        successor.socket.replace(bed.server.socket)

        assert await outcomes_of([gateway.commit(record("a"))]) == {SessionStoreUnavailable}
        await gateway.create(record("b"))


async def test_writes_that_a_crash_interrupts_fail_and_none_hangs(bed: RedisBed):
    """An item whose commit nobody answers would hold its stream for ever."""
    gateway = bed.open()
    records = [record(f"k{n}", state_bytes=1 << 20) for n in range(50)]
    await asyncio.gather(*(gateway.create(each) for each in records))

    commits = asyncio.create_task(outcomes_of([gateway.commit(each) for each in records]))
    await asyncio.sleep(0)
    bed.server.kill()

    assert await commits <= {type(None), SessionStoreUnavailable}


async def test_a_server_that_stalls_costs_a_second_and_mixes_nothing_up(bed: RedisBed):
    """A fork, a slow disk, a frozen machine: the connection stays up, and its answers come when nobody waits."""
    gateway = bed.open()
    keys = [f"k{n}" for n in range(10)]
    await asyncio.gather(*(gateway.create(record(key)) for key in keys))

    bed.server.freeze()
    began = time.monotonic()
    failed = await outcomes_of([gateway.commit(record(key, applied=1)) for key in keys])
    seconds = time.monotonic() - began
    bed.server.thaw()

    assert failed == {SessionStoreUnavailable}
    assert seconds < 2.5
    await asyncio.gather(*(gateway.commit(record(key, applied=2)) for key in keys))
    assert await asyncio.gather(*(gateway.claim(key) for key in keys)) == [
        replace(record(key, applied=2), epoch=2) for key in keys
    ]


@pytest.mark.parametrize("data", [b"", b"garbage", b"\x0a\x05hello", bytes(100)])
async def test_a_record_that_cannot_be_read_is_not_found(bed: RedisBed, data: bytes, caplog: pytest.LogCaptureFixture):
    """The client begins a new session, and the operator finds a line."""
    gateway = bed.open()
    await gateway.create(record("a"))
    await bed.redis.hset(PREFIX + "a", "record", data)

    with pytest.raises(SessionNotFound):
        await gateway.claim("a")

    assert "a record in the session store cannot be read" in caplog.text


async def test_one_broken_key_harms_no_other_session(bed: RedisBed):
    """What shares a command shares no fate."""
    gateway = bed.open()
    await bed.redis.set(PREFIX + "broken", "no hash")

    outcomes = await asyncio.gather(
        gateway.create(record("a")), gateway.claim("broken"), gateway.create(record("b")), return_exceptions=True
    )

    assert [type(outcome) for outcome in outcomes] == [type(None), SessionStoreUnavailable, type(None)]
    assert (await gateway.claim("b")).epoch == 2


async def test_a_server_without_memory_refuses_new_state_and_forgets_none(bed: RedisBed):
    """`maxmemory` with `noeviction`: what was committed stays, what is deleted makes room."""
    gateway = bed.open()
    await gateway.create(record("a", state_bytes=1 << 20))
    await bed.redis.config_set("maxmemory", 1)

    with pytest.raises(SessionStoreUnavailable):
        await gateway.create(record("b"))
    await gateway.delete(record("a"))
    await bed.redis.config_set("maxmemory", 0)

    await gateway.create(record("b"))
    with pytest.raises(SessionNotFound):
        await gateway.claim("a")


async def test_a_gateway_that_drops_sessions_without_a_word_finds_room_again(bed: RedisBed):
    """What Redis has forgotten must not count for ever."""
    gateway = bed.open(max_sessions=2)
    for key in ("a", "b"):
        await gateway.create(record(key))
    bed.now += 59
    await gateway.renew(["a"])

    bed.now += 2
    await gateway.create(record("c"))

    await gateway.commit(record("a", applied=1))


async def test_a_wrong_password_is_unavailable_and_in_no_log(caplog: pytest.LogCaptureFixture):
    """The line says what is wrong, without the secret."""
    with redis_server.running("--requirepass", "right") as server:
        for password, outcome in (("wrong-secret", SessionStoreUnavailable), ("right", type(None))):
            store = RedisSessionStore(f"{server.url}?password={password}", 10, lambda: 0.0)
            assert await outcomes_of([store.create(record("a"))]) == {outcome}
            await store.close()

    assert "invalid username-password pair" in str([vars(line) for line in caplog.records])
    assert "wrong-secret" not in str([vars(line) for line in caplog.records])


async def test_closing_finishes_what_was_asked_for(bed: RedisBed):
    """At a drain every session is released just before the store is closed."""
    gateway = bed.open()
    records = [record(f"k{n}") for n in range(600)]
    await asyncio.gather(*(gateway.create(each) for each in records))

    releases = [asyncio.create_task(gateway.release(replace(each, applied=9), 60)) for each in records]
    await asyncio.sleep(0)
    await gateway.close()
    await asyncio.gather(*releases)

    assert (await bed.open().claim("k599")).applied == 9
    with pytest.raises(SessionStoreUnavailable):
        await gateway.claim("k599")
