"""Which errors speak against a version, and which only say that something had to be shed. Pure."""

from __future__ import annotations

from inferway.errors import InferwayError

VERSIONS_FAULT = frozenset(
    {
        "DEADLINE_EXCEEDED",
        "INTERNAL",
        "MODEL_FAILED",
        "NO_WORKER",
        "QUARANTINED",
        "QUEUE_FULL",
        "RUNNER_CRASHED",
        "VERSION_LOAD_FAILED",
        "VERSION_NOT_READY",
        "WORKER_LOST",
        "WOULD_BE_LATE",
    }
)
"""Reasons that users of a version meet because of it: it is broken, gone, or slower than what is asked of it. All other
errors are the caller's, or would have met any version."""
_SHED = frozenset({"MEMORY_PRESSURE", "QUEUE_FULL", "WOULD_BE_LATE"})
_BEFORE_ANY_WORKER = frozenset({"gateway", "queue"})
"""Stages of DEADLINE_EXCEEDED."""


def is_versions_fault(error: InferwayError) -> bool:
    """Whether `error` counts against the version that a request was sent to."""
    return error.reason in VERSIONS_FAULT


def was_shed(error: InferwayError) -> bool:
    """Whether no worker ever had the request, because too many others were there."""
    if error.reason == "DEADLINE_EXCEEDED":
        return error.metadata.get("stage") in _BEFORE_ANY_WORKER
    return error.reason in _SHED
