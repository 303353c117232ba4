"""The whole answer of `inferway why`, of all workers together. Pure: what was asked and answered in, lines out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from google.protobuf.json_format import MessageToDict

from inferway.registry.v1 import resources_pb2
from inferway.worker.v1 import worker_service_pb2
from inferway_cli.serving_words import options_in_words
from inferway_cli.views import bare, load_state
from inferway_cli.why.advice import advice
from inferway_cli.why.ask import Answer
from inferway_cli.why.view import LEGEND, explanation_lines, fitted, paragraph


def report_lines(
    model: str, version: resources_pb2.ModelVersion, answers: Sequence[Answer], now_us: int
) -> Iterable[str]:
    """What people read; `now_us` is the time in microseconds since 1970. A line without indent is a heading."""
    for line in _lines(model, version, answers, now_us):
        yield from fitted(line)


def _lines(model: str, version: resources_pb2.ModelVersion, answers: Sequence[Answer], now_us: int) -> Iterable[str]:
    yield from (*LEGEND, "")
    ready = [bare(answer.worker.name) for answer in answers if _is_ready(answer, version.name)]
    by = f"served by {', '.join(ready)}" if ready else "not served yet"
    yield f"{model} version {version.version} is {by}."
    for answer in answers:
        yield ""
        yield f"{bare(answer.worker.name)} ({answer.worker.address}): {_state(answer, version.name)}"
        yield from _body(answer, version, now_us, model)


def report_dict(
    model: str, version: resources_pb2.ModelVersion, answers: Sequence[Answer], now_us: int
) -> dict[str, Any]:
    """The same for programs, whole; field names are those of the proto."""
    return {
        "model": model,
        "version": version.version,
        "serving_options": MessageToDict(version.serving_options, preserving_proto_field_name=True),
        "workers": [_answer_dict(answer, version, now_us) for answer in answers],
    }


def _body(answer: Answer, version: resources_pb2.ModelVersion, now_us: int, model: str) -> Iterable[str]:
    if answer.explained is None:
        reason = answer.error.message if answer.error is not None else "it said nothing"
        yield from paragraph(f"It cannot be asked: {reason}")
        return
    options = version.serving_options
    yield from explanation_lines(answer.explained, now_us, options_in_words(options))
    yield ""
    said = advice(answer.explained, options, f"{model} --version {version.version}", now_us)
    yield from paragraph(f"In short: {said}")


def _answer_dict(answer: Answer, version: resources_pb2.ModelVersion, now_us: int) -> dict[str, Any]:
    told: dict[str, Any] = {"worker": bare(answer.worker.name), "address": answer.worker.address}
    if answer.explained is None:
        return {**told, "error": answer.error.message if answer.error is not None else ""}
    explanation = MessageToDict(answer.explained, preserving_proto_field_name=True)
    named = f"{version.name.split('/')[1]} --version {version.version}"
    said = advice(answer.explained, version.serving_options, named, now_us)
    return {**told, "explanation": explanation, "advice": said}


def _state(answer: Answer, version: str) -> str:
    status = _status(answer, version)
    return "gone" if status is None else load_state(status)


def _is_ready(answer: Answer, version: str) -> bool:
    status = _status(answer, version)
    return status is not None and status.state == worker_service_pb2.LOAD_STATE_READY


def _status(answer: Answer, version: str) -> worker_service_pb2.VersionStatus | None:
    """As the worker just said; else as the registry last heard."""
    if answer.explained is not None:
        return answer.explained.status
    return next((status for status in answer.worker.versions if status.version == version), None)
