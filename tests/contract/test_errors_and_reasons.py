"""The vocabulary of errors: one reason, one class, and comments that name only what exists."""

import re
from pathlib import Path

import pytest
from google.rpc import code_pb2

from inferway import errors
from inferway.type.v1.error_reason_pb2 import ErrorReason

PROTOS = Path(errors.__file__).parent
PREFIX = "ERROR_REASON_"
REASONS = {name.removeprefix(PREFIX) for name in ErrorReason.keys()} - {"UNSPECIFIED"}  # noqa: SIM118 - not a dict


def error_classes() -> list[type[errors.InferwayError]]:
    return [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.InferwayError)]


def comments_of_values() -> dict[str, str]:
    """The comment above each value of the enum, by reason."""
    text = (PROTOS / "type/v1/error_reason.proto").read_text()
    return {name: comment for comment, name in re.findall(rf"// (.+)\n\s+{PREFIX}(\w+) = \d+;", text)}


def rpcs() -> dict[str, str]:
    """The comment of every rpc of ours, by `Service/Method`, as one line."""
    found = {}
    for path in sorted(PROTOS.glob("*/v*/*_service.proto")):
        service, comment = "", ""
        for line in map(str.strip, path.read_text().splitlines()):
            if line.startswith("//"):
                comment += line[2:]
                continue
            if match := re.match(r"(service|rpc) (\w+)", line):
                service = match[2] if match[1] == "service" else service
                if match[1] == "rpc":
                    found[f"{service}/{match[2]}"] = comment
            comment = ""
    return found


def test_every_reason_has_exactly_one_class():
    """A reason that nothing raises misleads; two classes for one reason cannot be told apart after the wire."""
    raised = sorted(each.reason for each in error_classes() if each.reason)

    assert sorted(REASONS) == raised


@pytest.mark.parametrize("error", error_classes(), ids=lambda error: error.__name__)
def test_the_code_of_a_class_is_the_one_that_its_reason_promises(error: type[errors.InferwayError]):
    """Callers in other languages read the proto, not our Python."""
    assert error.code in code_pb2.Code.keys()  # noqa: SIM118 - not a dict
    if error.reason:
        assert re.match(rf"{error.code}\b", comments_of_values()[error.reason])


def test_reasons_that_promise_retry_info_send_it():
    """A client that honours RetryInfo backs off only where the server says so."""
    promised = {reason for reason, comment in comments_of_values().items() if "with RetryInfo" in comment}
    sent = {each.reason for each in error_classes() if each.reason and each.default_retry_after_seconds is not None}

    assert promised <= sent


@pytest.mark.parametrize("rpc", sorted(rpcs()))
def test_the_comment_of_an_rpc_lists_its_errors_by_real_reasons(rpc: str):
    """The proto is the reference: who handles a reason that is misspelt there handles nothing."""
    sentence = rpcs()[rpc].partition(" Errors")[2]
    named = set(re.findall(r"\b[A-Z]{4,}(?:_[A-Z]+)*\b", sentence))

    assert sentence, "has no `Errors:` sentence"
    assert named <= REASONS
