"""Which session store a setting opens."""

from __future__ import annotations

import sys

import pytest

from inferway_chassis.addresses import SettingsRefused
from inferway_chassis.clock import monotonic
from inferway_gateway.sessions.redis_store import RedisSessionStore
from inferway_gateway.sessions.store import MemorySessionStore
from inferway_gateway.sessions.stores import open_store


def test_memory_is_a_store_of_this_process():
    """Nothing to install and nothing to run, for one gateway."""
    assert isinstance(open_store("memory", 10, monotonic), MemorySessionStore)


@pytest.mark.parametrize("url", ["redis://store:6379/3", "rediss://user:secret@store", "unix:///run/redis.sock?db=1"])
async def test_a_url_of_redis_opens_redis_without_connecting(url: str):
    """A gateway starts, and serves what needs no session, while its store is away."""
    store = open_store(url, 10, monotonic)

    assert isinstance(store, RedisSessionStore)
    await store.close()


@pytest.mark.parametrize("url", ["", "postgresql://secret@host", "redis://user:secret@host:no-port", "Memory"])
def test_anything_else_is_refused_without_being_quoted(url: str):
    """The line goes to a terminal and into logs; the URL may hold a password."""
    with pytest.raises(SettingsRefused, match="INFERWAY_GATEWAY_SESSION_STORE") as refused:
        open_store(url, 10, monotonic)

    assert "secret" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_without_redis_py_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    """Redis is an extra: who does without it installs nothing for it."""
    monkeypatch.delitem(sys.modules, "inferway_gateway.sessions.redis_store")
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)

    with pytest.raises(SettingsRefused, match=r"inferway\[redis\]"):
        open_store("redis://store", 10, monotonic)
