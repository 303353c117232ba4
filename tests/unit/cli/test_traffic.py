"""predict, load, status, trace, version: as typed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from inferway_cli.data_directory import DataDirectory
from inferway_cli.traces.record import Span
from inferway_cli.traces.store import TraceStore
from inferway_client.testing import FakeGateway
from tests.unit.cli.conftest import Inferway


async def test_predict_reads_json_and_arrays_in_the_models_datatype(inferway: Inferway, tmp_path: Path):
    """JSON numbers become FP32 because the model says so, and a single row gets its batch dimension."""
    np.save(tmp_path / "x.npy", np.ones((2, 3)))
    for text, expected in (("x=[1, 2, 3]", [[3, 5, 7]]), (f"x=@{tmp_path / 'x.npy'}", [[3, 3, 3], [3, 3, 3]])):
        done = await inferway("predict", "affine", "--input", text, "--json")
        assert done.code == 0, done.stderr
        assert json.loads(done.stdout)["outputs"] == {"y": expected}


async def test_predict_makes_up_a_row_and_streams_rows(inferway: Inferway):
    """The first thing that a newcomer types needs no data; a stream answers row by row."""
    assert "models/affine/versions/1" in (await inferway("predict", "affine")).stdout
    done = await inferway(
        "predict", "affine", "-i", "x=[[0,0,0],[1,1,1]]", "--stream", "--json", "--version", "champion"
    )
    assert [answer["outputs"]["y"] for answer in json.loads(done.stdout)] == [[[1, 1, 1]], [[3, 3, 3]]]


async def test_predict_tells_what_is_wrong_with_an_input(inferway: Inferway):
    """Name, form and type of an input are checked before anything is sent."""
    assert "it takes x" in (await inferway("predict", "affine", "-i", "z=[1]")).stderr
    formless = await inferway("predict", "affine", "-i", "[1]")
    assert (formless.code, "has no '='" in formless.stderr) == (2, True)
    assert "neither JSON nor" in (await inferway("predict", "affine", "-i", "x=one")).stderr
    assert "does not fit FP32" in (await inferway("predict", "affine", "-i", 'x=["one"]')).stderr


async def test_predict_can_be_traced(inferway: Inferway, gateway: FakeGateway):
    """The trace id that is printed is the one that was sent, and it asks for every span."""
    done = await inferway("predict", "affine", "--trace")
    _, trace_id, _, flags = gateway.calls[-1]["traceparent"].split("-")
    assert f"inferway trace {trace_id}" in done.stderr
    assert flags == "01"


async def test_load_counts_answers_and_reports_them(inferway: Inferway):
    """The traffic generator of every tutorial."""
    two_rows = "x=[[0, 0, 0], [1, 1, 1]]"
    for options in ((), ("--stream",), ("--rate", "100"), ("--rate", "100", "--stream"), ("--input", two_rows)):
        done = await inferway("load", "affine", "--seconds", "0.5", "--rows", "2", "--json", *options)
        assert done.code == 0, done.stderr
        summary = json.loads(done.stdout)
        assert summary["answers"] == summary["requests"] > 0
        assert summary["errors"] == {}
        assert 0 < summary["p50_ms"] <= summary["p99_ms"] <= summary["max_ms"]
        assert summary["versions"] == {"models/affine/versions/1": summary["answers"]}


async def test_status_exits_with_1_when_something_is_down(inferway: Inferway):
    """Scripts and people ask the same question; the fakes have no health service."""
    done = await inferway("status", "--gateway", "127.0.0.1:1", "--json")
    assert done.code == 1
    services = {row["service"]: row["health"] for row in json.loads(done.stdout)["services"]}
    assert services["gateway"] == "UNREACHABLE"


async def test_a_kept_trace_is_shown_as_a_tree(inferway: Inferway, tmp_path: Path):
    """From another process than the one that received it."""
    data = DataDirectory(tmp_path / "data")
    data.root.mkdir()
    with TraceStore(data.traces) as store:
        store.add([Span("a" * 32, "1" * 16, "", "Predict", "inferway-gateway", 0, 5_000_000)])
        store.add([Span("a" * 32, "2" * 16, "1" * 16, "gateway.queue", "inferway-gateway", 1_000_000, 2_000_000)])
    done = await inferway("trace", "a" * 32)
    assert done.code == 0, done.stderr
    assert "└─ gateway.queue" in done.stdout
    nested = json.loads((await inferway("trace", "--json")).stdout)
    assert nested["hops"][0]["children"][0]["duration_ms"] == 1.0
    assert "no trace" in (await inferway("trace", "b" * 32)).stderr


async def test_version_and_help_teach(inferway: Inferway):
    """Every command shows how it is used."""
    assert "grpcio" in json.loads((await inferway("version", "--json")).stdout)
    for command in ("up", "push", "alias", "models", "model", "unload", "delete", "predict", "load", "status", "trace"):
        assert f"inferway {command}" in (await inferway(command, "--help")).stdout


async def test_a_timeout_may_be_infinite_but_not_nan(inferway: Inferway, gateway: FakeGateway):
    """To wait for ever is a fair wish; it must not end at once."""
    assert (await inferway("predict", "affine", "--timeout", "inf")).code == 0
    refused = await inferway("predict", "affine", "--timeout", "nan")

    assert refused.code == 2
    assert "greater than or equal to 0.001" in " ".join(refused.stderr.replace("│", " ").split())
