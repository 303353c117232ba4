"""Recordings of strangers: what is right is driven to scale, what is wrong is refused with a reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from examples.fleet.gpx import GpxTracks, UnusableTrack

ONE_MINUTE_NORTH = [(48.0 + second / 60 / 60, 11.0, f"2024-05-01T10:00:{second:02}Z") for second in range(0, 60, 10)]
ONE_MINUTE_NORTH.append((48.0 + 1 / 60, 11.0, "2024-05-01T10:01:00Z"))
"""A sixtieth of a degree, a nautical mile: 1.853 km."""


def gpx(points: list[tuple[float, float, str]], namespace: str = "http://www.topografix.com/GPX/1/1") -> str:
    told = "".join(f'<trkpt lat="{lat}" lon="{lon}"><time>{time}</time></trkpt>' for lat, lon, time in points)
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        f'<gpx version="1.1" xmlns="{namespace}"><trk><trkseg>{told}</trkseg></trk></gpx>'
    )


def write(directory: Path, text: str) -> Path:
    file = directory / "track.gpx"
    file.write_text(text, encoding="utf-8")
    return file


def test_a_track_is_driven_to_scale(tmp_path: Path):
    """Steps of five seconds, km and km/min: what the model was trained with."""
    trip = GpxTracks([write(tmp_path, gpx(ONE_MINUTE_NORTH))]).next_trip(0)
    dx, dy, speed, limit, left_km, map_minutes = trip.features.T

    assert trip.steps == 12
    assert trip.minutes_left(0) == pytest.approx(1.0)
    np.testing.assert_allclose([dy[0], left_km[0]], 1.853, atol=2e-3)
    np.testing.assert_allclose(dx, 0, atol=1e-6)
    np.testing.assert_allclose(speed[1:], 1.853, atol=2e-3)
    np.testing.assert_allclose(limit * map_minutes, left_km, rtol=1e-5)
    np.testing.assert_allclose(trip.positions[-1] - trip.positions[0], [0, 1.853], atol=2e-3)


def test_vehicles_replay_the_tracks_in_turn(tmp_path: Path):
    """Any number of vehicles, for as long as somebody looks."""
    east = [(lat, lon + second * 1e-3, time) for second, (lat, lon, time) in enumerate(ONE_MINUTE_NORTH)]
    both = gpx(ONE_MINUTE_NORTH).removesuffix("</gpx>") + "<trk>" + gpx(east).partition("<trk>")[2]
    tracks = GpxTracks([write(tmp_path, both)])

    assert len(tracks) == 2
    first, second = tracks.next_trip(0), tracks.next_trip(0)
    assert first is not second
    assert tracks.next_trip(1) is second
    assert tracks.next_trip(0) is first


def test_other_namespaces_and_points_that_go_back_in_time_are_no_matter(tmp_path: Path):
    """Loggers write both."""
    points = [*ONE_MINUTE_NORTH[:4], (0.0, 0.0, "2024-05-01T09:00:00Z"), *ONE_MINUTE_NORTH[4:]]
    trip = GpxTracks([write(tmp_path, gpx(points, "http://www.topografix.com/GPX/1/0"))]).next_trip(0)

    assert (trip.steps, trip.features[0, 4]) == (12, pytest.approx(1.853, abs=2e-3))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("no xml", "syntax error"),
        ('<!DOCTYPE gpx [<!ENTITY a "aaaa">]>' + gpx(ONE_MINUTE_NORTH).partition("?>")[2], "DOCTYPE"),
        (gpx(ONE_MINUTE_NORTH[:1]), "no file has a track"),
        (gpx([(lat, lon, "") for lat, lon, _ in ONE_MINUTE_NORTH]), "no file has a track"),
        (gpx([(lat + 90, lon, time) for lat, lon, time in ONE_MINUTE_NORTH]), "not on Earth"),
        (gpx([(float("nan"), lon, time) for _, lon, time in ONE_MINUTE_NORTH]), "not on Earth"),
        (gpx([(lat, lon, "noon") for lat, lon, _ in ONE_MINUTE_NORTH]), "noon"),
    ],
)
def test_what_cannot_be_driven_is_refused_with_a_reason(tmp_path: Path, text: str, told: str):
    """In one line; a foreign file must not end the program in a stack trace, nor fill its memory."""
    with pytest.raises(UnusableTrack, match=told):
        GpxTracks([write(tmp_path, text)])
