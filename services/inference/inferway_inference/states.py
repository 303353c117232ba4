"""The life of a version in a worker, as written in `worker_service.proto`, with the transitions that are permitted."""

from __future__ import annotations

from enum import IntEnum


class LoadState(IntEnum):
    """Where a version stands. Values equal those of `inferway.worker.v1.LoadState`."""

    PENDING = 1
    DOWNLOADING = 2
    LOADING = 3
    WARMING = 4
    READY = 5
    DRAINING = 6
    UNLOADED = 7
    FAILED = 8


_S = LoadState

TRANSITIONS: dict[LoadState, frozenset[LoadState]] = {
    _S.PENDING: frozenset({_S.DOWNLOADING, _S.UNLOADED}),
    _S.DOWNLOADING: frozenset({_S.LOADING, _S.FAILED, _S.UNLOADED}),
    _S.LOADING: frozenset({_S.WARMING, _S.FAILED, _S.UNLOADED}),
    _S.WARMING: frozenset({_S.READY, _S.FAILED, _S.UNLOADED}),
    _S.READY: frozenset({_S.DRAINING, _S.PENDING, _S.FAILED}),
    _S.DRAINING: frozenset({_S.UNLOADED}),
    _S.FAILED: frozenset({_S.PENDING, _S.UNLOADED}),
    _S.UNLOADED: frozenset(),
}
"""PENDING from READY: the runner crashed, and the version is loaded again at once; FAILED if it does so again and
again. UNLOADED from before READY: the version was withdrawn while it was being loaded. A version that is wanted again
after it was unloaded begins anew."""

LOADING_STATES = frozenset({_S.DOWNLOADING, _S.LOADING, _S.WARMING})
"""Work is being done to make the version ready."""


def permitted(old: LoadState, new: LoadState) -> bool:
    """Whether a version may go from `old` to `new`."""
    return new in TRANSITIONS[old]
