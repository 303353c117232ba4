"""What gateways report of splits without a rollout, and what was found of them, between messages and values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from inferway import names
from inferway.errors import InvalidField
from inferway.registry.v1 import outcome_service_pb2
from inferway.registry.v1 import resources_pb2 as pb
from inferway_registry.convert_outcomes import MAX_COUNT
from inferway_registry.policy import MAX_ARMS
from inferway_registry.split_check import THRESHOLD, ArmCount, SplitCheck
from inferway_registry.splits import SplitReport

MAX_SPLITS = 1_000


def reports(messages: Sequence[outcome_service_pb2.SplitOutcomes]) -> dict[str, SplitReport]:
    """By endpoint; raises InvalidField or InvalidName unless they can be kept, and added to others."""
    if len(messages) > MAX_SPLITS:
        raise InvalidField.at("splits", f"of {len(messages)} endpoints; at most {MAX_SPLITS}")
    return dict(_report(message, f"splits[{index}]") for index, message in enumerate(messages))


def split_message(check: SplitCheck) -> pb.SplitCheck:
    """What was found."""
    return pb.SplitCheck(
        arms=[pb.SplitArm(arm=name, **asdict(count)) for name, count in check.arms.items()],
        mismatch=pb.SplitCheck.Mismatch.ValueType(check.mismatch),
        log_evidence=check.log_e,
        log_threshold=THRESHOLD,
        explanation=check.explanation,
    )


def _report(message: outcome_service_pb2.SplitOutcomes, field: str) -> tuple[str, SplitReport]:
    endpoint = names.parse(message.endpoint, "endpoints", f"{field}.endpoint")
    arms = {arm.arm: _count(arm, f"{field}.arms[{index}]") for index, arm in enumerate(message.arms)}
    if not len(arms) == len(message.arms) <= MAX_ARMS:
        raise InvalidField.at(f"{field}.arms", f"expected at most {MAX_ARMS} arms, each once")
    return endpoint, SplitReport(message.generation, arms)


def _count(arm: pb.SplitArm, field: str) -> ArmCount:
    alone, answered_alone = arm.units - arm.keyed_units, arm.answered - arm.keyed_answered
    if not (0 <= answered_alone <= alone <= MAX_COUNT and 0 <= arm.keyed_answered <= arm.keyed_units <= MAX_COUNT):
        raise InvalidField.at(field, f"expected counts up to {MAX_COUNT:,}, and no more answers than units")
    return ArmCount(arm.units, arm.answered, arm.keyed_units, arm.keyed_answered)
