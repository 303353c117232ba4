"""Opens the session store that a setting names."""

from __future__ import annotations

from inferway_chassis.addresses import SettingsRefused
from inferway_chassis.clock import Clock
from inferway_gateway.sessions.store import MemorySessionStore, SessionStore

SETTING = "INFERWAY_GATEWAY_SESSION_STORE"
MEMORY = "memory"
SCHEMES = ("redis://", "rediss://", "unix://")


def open_store(url: str, max_sessions: int, clock: Clock) -> SessionStore:
    """`memory`, or a URL of Redis, which is not connected to before it is needed. Raises SettingsRefused."""
    if url == MEMORY:
        return MemorySessionStore(max_sessions, clock)
    if not url.startswith(SCHEMES):
        raise SettingsRefused(f"{SETTING}: `{MEMORY}`, or a URL that begins with {', '.join(SCHEMES)}")
    try:
        from inferway_gateway.sessions.redis_store import RedisSessionStore  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise SettingsRefused(f"{SETTING}: needs redis-py; pip install 'inferway[redis]'") from error
    try:
        return RedisSessionStore(url, max_sessions, clock)
    except ValueError:  # whose text may quote the password
        raise SettingsRefused(f"{SETTING}: not a URL that redis-py understands") from None
