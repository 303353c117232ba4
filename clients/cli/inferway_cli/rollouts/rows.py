"""Rollouts as rows: the same for tables and for JSON."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from inferway.registry.v1 import rollouts_pb2
from inferway_cli.rollouts.figures import clock
from inferway_cli.rollouts.named import shown, state_name
from inferway_cli.rollouts.spec import percent, short, strategy_name
from inferway_cli.views import timestamp


def row(rollout: rollouts_pb2.Rollout, now: datetime) -> dict[str, Any]:
    """What it brings, where it stands, and why; `in_short` has the first sentence of that."""
    return {
        "rollout": shown(rollout),
        "version": short(rollout.spec.candidate_version),
        "stable_version": short(rollout.stable_version),
        "strategy": strategy_name(rollout.spec),
        "state": state_name(rollout.state),
        "weight": percent(rollout.candidate_weight_basis_points),
        "age": clock((now - rollout.create_time.ToDatetime(UTC)).total_seconds()),
        "began": timestamp(rollout.create_time),
        "ended": timestamp(rollout.end_time),
        "description": rollout.spec.description,
        "reason": rollout.reason,
        "in_short": rollout.reason.partition(". ")[0],
        "next": rollout.next,
    }
