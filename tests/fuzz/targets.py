"""Every fuzz target by name. A target takes any bytes, and raises only if the code under test is wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from tests.fuzz.links import gateway_end, worker_end
from tests.fuzz.requests import link_frame, oip_request, prediction_request
from tests.fuzz.snapshots import snapshot
from tests.fuzz.streams import stream_door

CORPUS = Path(__file__).parent / "corpus"

TARGETS: Mapping[str, Callable[[bytes], None]] = {
    "oip_request": oip_request,
    "prediction_request": prediction_request,
    "link_frame": link_frame,
    "gateway_end": gateway_end,
    "worker_end": worker_end,
    "snapshot": snapshot,
    "stream_door": stream_door,
}
