"""Builds and runs the C++ load generators."""

from __future__ import annotations

import json
import select
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SOURCES = Path(__file__).parent / "loadgen"
PACKAGES = ("grpc++", "gpr", "protobuf")


class LoadgenMissing(Exception):
    """The generators cannot be built here; the message says what to install."""


def build(directory: Path) -> None:
    """Compiles all generators into `directory` unless they are newer than their sources; raises LoadgenMissing."""
    directory.mkdir(parents=True, exist_ok=True)
    for source in SOURCES.glob("*.cc"):
        binary = directory / source.stem
        if binary.exists() and binary.stat().st_mtime > source.stat().st_mtime:
            continue
        print(f"building {source.stem} (about 20 s) …", flush=True)
        flags = _run(["pkg-config", "--cflags", "--libs", *PACKAGES]).split()
        _run(["g++", "-O2", "-std=c++17", str(source), "-o", str(binary), *flags])


def unary(binary: Path, target: str, method: str, payload: Path, concurrency: int, seconds: float) -> dict[str, Any]:
    """Closed loop of unary calls, `concurrency` in flight."""
    return _load([binary / "grpcload", target, method, payload, concurrency, seconds / 4, seconds])


def streams(binary: Path, target: str, method: str, payload: Path, count: int, seconds: float) -> dict[str, Any]:
    """`count` bidirectional streams with 8 messages in flight on each."""
    return _load([binary / "grpcstream", target, method, payload, count, 8, seconds / 4, seconds])


def predict_streams(binary: Path, target: str, opening: Path, message: Path, **options: float) -> dict[str, Any]:
    """Closed loop on streams of our own protocol; `loadgen/predictstream.cc` says which options there are."""
    return _load(_predict_streams(binary, target, opening, message, options))


class Paced:
    """Unary calls at a fixed rate, from now on, whatever comes back."""

    def __init__(self, binary: Path, target: str, method: str, payload: Path, rate: float) -> None:
        """So many calls a second."""
        command: list[str | Path] = [binary / "grpcpace", target, method, payload, str(rate)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def stop(self) -> list[float]:
        """Milliseconds of every call, from when it was due; raises RuntimeError if one failed."""
        output, _ = self._process.communicate(timeout=60)
        milliseconds: list[float] = _result(output)["ms"]
        return milliseconds


@contextmanager
def held_streams(
    binary: Path, target: str, opening: Path, message: Path, ready_seconds: float, **options: float
) -> Iterator[None]:
    """The same at rest: every item is answered, or, without `read`, nothing more can be sent."""
    command = _predict_streams(binary, target, opening, message, {**options, "seconds": 0})
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            if not select.select([process.stdout], [], [], ready_seconds)[0]:
                raise RuntimeError(f"{options} were not at rest within {ready_seconds:g} s")
            assert process.stdout.readline() == "ready\n"
            yield
            process.stdin.close()
            _result(process.stdout.read())
        finally:
            process.kill()


def _predict_streams(
    binary: Path, target: str, opening: Path, message: Path, options: dict[str, float]
) -> list[str | Path]:
    return [binary / "predictstream", target, opening, message, *(f"{name}={value}" for name, value in options.items())]


def _load(command: Sequence[object]) -> dict[str, Any]:
    output = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, timeout=120)
    return _result(output.stdout)


def _result(output: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    if result["errors"]:
        raise RuntimeError(f"{result['errors']} calls failed: {result.get('err', '')}")
    return result


def _run(command: list[str]) -> str:
    if shutil.which(command[0]) is None:
        raise LoadgenMissing(f"{command[0]} is missing; see benchmarks/README.md for what to install")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LoadgenMissing(f"{command[0]} failed; see benchmarks/README.md for what to install\n{done.stderr[-800:]}")
    return done.stdout
