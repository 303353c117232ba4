"""Rollouts, what gateways do for them, and rules of endpoints, as messages."""

from __future__ import annotations

from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from inferway import names
from inferway.registry.v1 import resources_pb2
from inferway.registry.v1 import rollouts_pb2 as pb
from inferway_registry.convert_rollout_spec import header_match, header_match_message, mirror_message, spec_message
from inferway_registry.resources import MatchRule, etag
from inferway_registry.rollouts.directive import directive
from inferway_registry.rollouts.rollout import Rollout, Transition


def match_rule(message: resources_pb2.MatchRule, field: str) -> MatchRule:
    """A rule of an endpoint; raises InvalidName or InvalidField."""
    return MatchRule(header_match(message.match, f"{field}.match"), names.check_segment(message.arm, f"{field}.arm"))


def match_rule_message(rule: MatchRule) -> resources_pb2.MatchRule:
    """A rule of an endpoint."""
    return resources_pb2.MatchRule(match=header_match_message(rule.match), arm=rule.arm)


def rollout_message(rollout: Rollout, following: str = "") -> pb.Rollout:
    """A rollout without figures; `following` says in words what happens next."""
    return pb.Rollout(
        name=rollout.name,
        spec=spec_message(rollout.spec),
        state=pb.Rollout.State.ValueType(rollout.state),
        reason=rollout.reason,
        next=following,
        stable_version=names.version_name(*rollout.stable),
        step=rollout.step,
        candidate_weight_basis_points=rollout.weight_basis_points,
        create_time=timestamp(rollout.create_time),
        state_time=timestamp(rollout.state_time),
        end_time=timestamp(rollout.end_time),
        etag=etag(rollout.revision),
        transitions=map(_transition_message, rollout.transitions),
    )


def directive_message(rollout: Rollout) -> resources_pb2.RolloutDirective | None:
    """What gateways do for a rollout; None if it has ended."""
    told = directive(rollout)
    if told is None:
        return None
    message = resources_pb2.RolloutDirective(
        rollout=told.rollout,
        stable_arm=told.stable_arm,
        candidate_arm=told.candidate_arm,
        counts=told.counts,
        profiles=told.profiles,
        p95_us=told.p95_us,
        p99_us=told.p99_us,
        output_edges=[resources_pb2.OutputEdges(output=name, edges=edges) for name, edges in told.edges.items()],
        brake_alpha=told.brake_alpha,
    )
    if told.mirror is not None:
        message.mirror.CopyFrom(
            resources_pb2.MirrorDirective(version=told.mirror.version, mirror=mirror_message(told.mirror.mirror))
        )
    return message


def _transition_message(transition: Transition) -> pb.RolloutTransition:
    return pb.RolloutTransition(
        transition_time=timestamp(transition.at),
        state=pb.Rollout.State.ValueType(transition.state),
        step=transition.step,
        candidate_weight_basis_points=transition.weight_basis_points,
        reason=transition.reason,
        principal=transition.principal,
    )


def timestamp(time: datetime | None) -> Timestamp | None:
    """A moment, if there is one."""
    if time is None:
        return None
    message = Timestamp()
    message.FromDatetime(time)
    return message
