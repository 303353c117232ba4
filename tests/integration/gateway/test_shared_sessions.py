"""Two gateways at one Redis: a client goes on at either."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from inferway.errors import SessionStoreUnavailable, SessionTakenOver
from tests.integration.gateway.accumulator import accumulate, accumulator, item, sum_endpoint, sum_of
from tests.integration.gateway.conftest import Bed, gateway, settings_for
from tests.integration.gateway.fake_registry import FakeRegistry
from tests.integration.gateway.fake_worker import FakeWorker
from tests.integration.gateway.test_sessions import V1, acknowledge, add_version, failure_of, opened, result, resumed
from tests.testbed import redis_server
from tests.testbed.redis_server import RedisServer

pytestmark = pytest.mark.redis


@pytest.fixture
async def pair(
    registry: FakeRegistry, worker: FakeWorker, tmp_path: Path
) -> AsyncIterator[tuple[Bed, Bed, RedisServer]]:
    """Both have version 1 of `sum` from one worker."""
    worker.compute = accumulate
    await add_version(worker, V1)
    with redis_server.running() as redis:
        one, other = (
            settings_for(tmp_path / name, registry.target, session_store=redis.url) for name in ("one", "other")
        )
        async with gateway(one, registry, worker) as first, gateway(other, registry, worker) as second:
            await first.publish(accumulator(), endpoints=[sum_endpoint()])
            for bed in (first, second):
                await bed.until_health_is("model/sum", serving=True)
            yield first, second, redis


async def test_a_session_goes_on_at_another_gateway(pair: tuple[Bed, Bed, RedisServer]):
    """State, what was not acknowledged and the last item come along; who had it before can do no more."""
    first, second, _ = pair
    call, opening = await opened(first, resumable=True)
    for item_id in (1, 2, 3):
        await call.write(item(item_id))
    assert [sum_of(await result(call)) for _ in range(3)] == [11, 13, 16]

    moved, again = await resumed(second, opening.session.resume_token, acknowledged=1)
    kept = [await result(moved), await result(moved)]
    await moved.write(item(4))

    assert again.session.applied_item == 3
    assert [(each.id, sum_of(each)) for each in kept] == [(2, 13), (3, 16)]
    assert sum_of(await result(moved)) == 20
    await call.write(acknowledge(3))
    await call.write(item(4))
    assert isinstance(await failure_of(call), SessionTakenOver)


async def test_without_its_store_a_stream_ends_and_its_gateway_serves_on(pair: tuple[Bed, Bed, RedisServer]):
    """A result that was not committed is never sent; the gateway stays ready for what needs no session."""
    first, _, redis = pair
    call, _ = await opened(first, resumable=True)
    await call.write(item(1))
    assert sum_of(await result(call)) == 11

    redis.kill()
    await call.write(item(2))

    assert isinstance(await failure_of(call), SessionStoreUnavailable)
    await first.until_health_is("model/sum", serving=True)
    redis.start()
    call, _ = await opened(first, resumable=True)
    await call.write(item(1))
    assert sum_of(await result(call)) == 11
