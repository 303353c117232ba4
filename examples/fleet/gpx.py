"""Real recordings as trips: GPX 1.1 tracks, whose points have times.

Degrees become km around the centre of all tracks, and points become steps of STEP_MINUTES. What the map of the town
would tell is guessed: the permitted speed is one that the vehicle seldom exceeded. The destination is the last point.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
from numpy.typing import NDArray

from examples.eta.drives import STEP_MINUTES
from examples.fleet.tracks import Trip

Floats = NDArray[np.float64]
KM_PER_DEGREE = 111.195
"""Of latitude, on a sphere of 6,371 km."""
MAX_BYTES = 64 * 1024 * 1024
MIN_STEPS = 3
SELDOM_EXCEEDED = 90
"""Per cent of the steps."""
SLOWEST_KM_PER_MINUTE = 0.1


class UnusableTrack(Exception):
    """The file holds no track that a vehicle could drive; the message says why."""


class GpxTracks:
    """The tracks of files, replayed again and again: vehicle i begins with track i."""

    def __init__(self, files: Sequence[Path]) -> None:
        """Raises UnusableTrack."""
        recorded = [track for file in files for track in _read(file)]
        if not recorded:
            raise UnusableTrack("no file has a track of a minute with times")
        centre = np.concatenate([degrees for _, degrees in recorded]).mean(axis=0)
        self._trips = [_trip(seconds, _projected(degrees, centre)) for seconds, degrees in recorded]
        self._driven: dict[int, int] = {}
        self.ground = np.concatenate([trip.positions for trip in self._trips])

    def __len__(self) -> int:
        """How many tracks there are."""
        return len(self._trips)

    def next_trip(self, vehicle: int) -> Trip:
        """See Tracks."""
        driven = self._driven[vehicle] = self._driven.get(vehicle, -1) + 1
        return self._trips[(vehicle + driven) % len(self._trips)]

    def look_ahead(self, step: float) -> None:
        """See Tracks. All is known."""


def _read(file: Path) -> Iterator[tuple[Floats, Floats]]:
    """Seconds [points] and degrees of latitude and longitude [points, 2] of each track that is long enough."""
    try:
        if file.stat().st_size > MAX_BYTES:
            raise UnusableTrack(f"{file}: larger than {MAX_BYTES >> 20} MiB")
        text = file.read_text(encoding="utf-8")
        if "<!DOCTYPE" in text:  # entities could fill the memory, and no GPX needs them
            raise UnusableTrack(f"{file}: has a DOCTYPE, which GPX does not")
        root = ET.fromstring(text)  # noqa: S314 - without a DOCTYPE there is nothing to expand
        for track in _within(root, "trk"):
            seconds, degrees = _points(track)
            if len(seconds) > 1 and seconds[-1] - seconds[0] >= MIN_STEPS * STEP_MINUTES * 60:
                yield seconds, degrees
    except (OSError, UnicodeDecodeError, ET.ParseError, KeyError, ValueError) as error:
        raise UnusableTrack(f"{file}: {error}") from None


def _points(track: ET.Element) -> tuple[Floats, Floats]:
    """Those with a time after that of the one before."""
    seconds: list[float] = []
    degrees: list[tuple[float, float]] = []
    for point in _within(track, "trkpt"):
        told = next((each.text for each in _within(point, "time")), None)
        at = datetime.fromisoformat(told.strip()).timestamp() if told else None
        if at is not None and (not seconds or at > seconds[-1]):
            seconds.append(at)
            degrees.append((float(point.attrib["lat"]), float(point.attrib["lon"])))
    found = np.array(degrees, np.float64).reshape(-1, 2)
    if not np.isfinite(found).all() or (np.abs(found) > (90, 180)).any():
        raise ValueError("a point is not on Earth")
    return np.array(seconds, np.float64), found


def _within(element: ET.Element, name: str) -> Iterator[ET.Element]:
    """Descendants of the name, in whichever namespace: loggers disagree about it."""
    return (each for each in element.iter() if each.tag.rpartition("}")[2] == name)


def _projected(degrees: Floats, centre: Floats) -> Floats:
    """[points, 2] km east and north of the centre."""
    north, east = ((degrees - centre + 180) % 360 - 180).T * KM_PER_DEGREE
    return np.stack([east * np.cos(np.radians(centre[0])), north], axis=1)


def _trip(seconds: Floats, points: Floats) -> Trip:
    """The same way in equal steps, and what the vehicle would have told in each."""
    step_seconds = STEP_MINUTES * 60
    at = np.arange(seconds[0], seconds[-1] + step_seconds, step_seconds)
    positions = np.stack([np.interp(at, seconds, axis) for axis in points.T], axis=1)
    advance = np.linalg.norm(np.diff(positions, axis=0), axis=1)
    left = advance[::-1].cumsum()[::-1]
    speed = np.concatenate([[0.0], advance[:-1]]) / STEP_MINUTES
    limit = max(float(np.percentile(advance / STEP_MINUTES, SELDOM_EXCEEDED)), SLOWEST_KM_PER_MINUTE)
    way = positions[-1] - positions[:-1]
    features = np.stack([*way.T, speed, np.full(len(left), limit), left, left / limit], axis=1)
    return Trip(features.astype(np.float32), positions)
