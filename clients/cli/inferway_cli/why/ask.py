"""Asks every worker that has a version how it serves it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from inferway.errors import InferwayError
from inferway.registry.v1 import resources_pb2
from inferway.worker.v1 import worker_service_pb2, worker_service_pb2_grpc
from inferway_cli.addresses import MAX_MESSAGE_BYTES
from inferway_cli.why.advice import Explanation
from inferway_client.transport import open_channel, translated_errors

ASK_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of asking one worker."""

    worker: resources_pb2.Worker
    explained: Explanation | None
    """Set unless there is an error."""
    error: InferwayError | None = None


async def ask_workers(workers: Iterable[resources_pb2.Worker], version: str) -> list[Answer]:
    """Asks all workers at once; a worker that does not answer is an Answer with its error."""
    return list(await asyncio.gather(*(_ask(worker, version) for worker in workers)))


def having(workers: Iterable[resources_pb2.Worker], version: str) -> list[resources_pb2.Worker]:
    """The workers that hold the version or try to."""
    return [worker for worker in workers if any(status.version == version for status in worker.versions)]


async def _ask(worker: resources_pb2.Worker, version: str) -> Answer:
    request = worker_service_pb2.ExplainVersionRequest(version=version)
    try:
        async with open_channel(worker.address, MAX_MESSAGE_BYTES) as channel:
            with translated_errors(worker.address):
                stub = worker_service_pb2_grpc.WorkerServiceStub(channel)
                return Answer(worker, await stub.ExplainVersion(request, timeout=ASK_SECONDS))
    except InferwayError as error:
        return Answer(worker, None, error)
