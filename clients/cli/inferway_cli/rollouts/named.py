"""Which rollout is meant: `digits` is the newest of the endpoint, `digits/3` the third."""

from __future__ import annotations

from inferway import names
from inferway.registry.v1 import rollouts_pb2
from inferway_cli.console import CommandError

_ENDS = frozenset(
    {
        rollouts_pb2.Rollout.STATE_SUCCEEDED,
        rollouts_pb2.Rollout.STATE_ROLLED_BACK,
        rollouts_pb2.Rollout.STATE_FAILED,
    }
)


def newest(endpoint: str) -> str:
    """The full name that stands for the newest rollout of an endpoint; in commands for the active one."""
    return f"{names.endpoint_name(endpoint)}/rollouts/-"


def full_name(typed: str) -> str:
    """`digits` or `digits/3` as a full name; raises CommandError for anything else, InvalidName for bad characters."""
    endpoint, slash, number = typed.partition("/")
    names.check_segment(endpoint, "ENDPOINT")
    if not slash:
        return newest(endpoint)
    if not number.isdecimal() or not int(number):
        raise CommandError(f"{typed!r} names no rollout; expected an endpoint, or its rollout's number, as in digits/3")
    return names.rollout_name(endpoint, int(number))


def endpoint_of(rollout: rollouts_pb2.Rollout) -> str:
    """The endpoint that it belongs to."""
    return names.parse_rollout(rollout.name)[0]


def shown(rollout: rollouts_pb2.Rollout) -> str:
    """As commands take it: `digits/3`."""
    return "/".join(map(str, names.parse_rollout(rollout.name)))


def is_over(rollout: rollouts_pb2.Rollout) -> bool:
    """Whether it has come to its end."""
    return rollout.state in _ENDS


def state_name(state: rollouts_pb2.Rollout.State.ValueType) -> str:
    """`RUNNING`; also of a state that this command does not know yet."""
    try:
        return rollouts_pb2.Rollout.State.Name(state).removeprefix("STATE_")
    except ValueError:
        return f"state {state}"
