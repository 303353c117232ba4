"""Sends the held-out images through the gateway: by calls, by one stream, and one of them traced."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from inferway.errors import Unavailable
from inferway_cli.demo.publish import MODEL
from inferway_cli.histogram import LatencyHistogram
from inferway_cli.traces.receiver import TraceReceiver
from inferway_cli.traces.record import Span
from inferway_cli.traces.tree import Hop, build, flatten
from inferway_client import Client, Prediction
from inferway_client.tensors import Array

CONCURRENCY = 8
ROUTED_SECONDS = 30.0
SPANS_SECONDS = 5.0
LAST_HOP = "runner.compute"


@dataclass(slots=True)
class Answers:
    """What came back for the images of one round."""

    labels: dict[int, int] = field(default_factory=dict)
    """By index of the image."""
    latencies: LatencyHistogram = field(default_factory=LatencyHistogram)
    seconds: float = 0.0

    def accuracy(self, truth: Array) -> float:
        """Share of the images that got their own label."""
        return float(np.mean([self.labels[index] == label for index, label in enumerate(truth)]))

    @property
    def per_second(self) -> float:
        """Images answered a second."""
        return len(self.labels) / self.seconds


def read_held_out(path: Path) -> tuple[Array, Array]:
    """Returns images [n, 64] and labels [n]."""
    with np.load(path) as held_out:
        return held_out["images"], held_out["labels"]


async def until_routed(client: Client, image: Array) -> None:
    """Returns when the gateway answers: it learns of a ready version a moment after the registry."""
    async with asyncio.timeout(ROUTED_SECONDS):
        while True:
            try:
                await client.predict(MODEL, {"image": image[np.newaxis]})
            except Unavailable as error:
                await asyncio.sleep(min(error.retry_after_seconds or 0.1, 0.1))
            else:
                return


async def ask_by_calls(client: Client, images: Array) -> Answers:
    """One call for each image, a few at once."""
    answers, pending = Answers(), enumerate(images)
    started = time.perf_counter()
    await asyncio.gather(*(_caller(client, pending, answers) for _ in range(CONCURRENCY)))
    answers.seconds = time.perf_counter() - started
    return answers


async def ask_by_stream(client: Client, images: Array) -> Answers:
    """One stream, one item for each image."""
    answers = Answers()
    sent: list[float] = []

    def items() -> Iterator[dict[str, Array]]:
        for image in images:
            sent.append(time.perf_counter())
            yield {"image": image[np.newaxis]}

    async with client.stream(MODEL) as stream:
        started = time.perf_counter()
        async for result in stream.map(items()):
            now = time.perf_counter()
            answers.latencies.add(now - sent[result.id])
            answers.labels[result.id] = _label(result.unwrap())
        answers.seconds = time.perf_counter() - started
    return answers


async def ask_traced(client: Client, image: Array, receiver: TraceReceiver) -> tuple[str, Sequence[Hop]]:
    """Sends one request whose every hop records a span; returns the trace's id and its tree."""
    trace_id, span_id = secrets.token_hex(16), secrets.token_hex(8)
    began = time.time_ns()
    await client.predict(MODEL, {"image": image[np.newaxis]}, traceparent=f"00-{trace_id}-{span_id}-01")
    ended = time.time_ns()
    receiver.keep([Span(trace_id, span_id, "", "inferway.client/Predict", "client", began, ended)])
    spans = await receiver.until(trace_id, lambda spans: _is_complete(trace_id, spans), SPANS_SECONDS)
    return trace_id, build(trace_id, spans)


async def _caller(client: Client, pending: Iterator[tuple[int, Array]], answers: Answers) -> None:
    for index, image in pending:
        started = time.perf_counter()
        prediction = await client.predict(MODEL, {"image": image[np.newaxis]})
        answers.latencies.add(time.perf_counter() - started)
        answers.labels[index] = _label(prediction)


def _label(prediction: Prediction) -> int:
    return int(prediction.outputs["probabilities"][0].argmax())


def _is_complete(trace_id: str, spans: list[Span]) -> bool:
    """All hops have reported: the tree hangs together from the client to the runner."""
    roots = build(trace_id, spans)
    return len(roots) == 1 and any(span.name == LAST_HOP for span in flatten(roots))
