"""`grpc.health.v1` for the server, its services and its models: `Check` and `Watch`."""

from __future__ import annotations

from grpc_health.v1 import health, health_pb2

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Health:
    """The health of names. "" is the whole server. Unknown names are SERVICE_UNKNOWN (`Watch`) or NOT_FOUND."""

    def __init__(self) -> None:
        """Nothing is known yet."""
        self.servicer = health.aio.HealthServicer()
        self._state: dict[str, bool] = {}
        self._draining = False

    async def set(self, name: str, serving: bool) -> None:  # noqa: FBT001 - the name says what the flag is
        """Publishes the state of `name` to checkers and watchers; ignored once draining."""
        if self._draining or self._state.get(name) is serving:
            return
        self._state[name] = serving
        await self.servicer.set(name, _SERVING if serving else _NOT_SERVING)

    async def drain(self) -> None:
        """Everything is NOT_SERVING from now on, for good."""
        for name in self._state:
            await self.set(name, serving=False)
        self._draining = True
