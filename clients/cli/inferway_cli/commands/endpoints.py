"""Where traffic goes: endpoint."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from inferway.registry.v1 import resources_pb2
from inferway_cli.addresses import DEFAULT_REGISTRY, RegistryOption
from inferway_cli.console import CommandError, JsonFlag, out, print_json, run
from inferway_cli.registry import Registry
from inferway_cli.views import endpoint_row, pairs

Streams = Literal["finish", "migrate"]
_IN_WORDS = {
    "default": "stay with their version if the model is stateful, and move on otherwise",
    "finish": "stay with their version, for ten minutes at most",
    "migrate": "move on with their next item, with the state if it fits",
}


def endpoint(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The endpoint's name; each model has one of its own.")],
    streams: Annotated[Streams | None, typer.Option(help="What open streams do when the versions change.")] = None,
    manual: Annotated[
        bool, typer.Option("--manual", help="Keep traffic where it is when a version is published.")
    ] = False,
    automatic: Annotated[bool, typer.Option("--automatic", help="Let traffic follow the newest version.")] = False,
    registry: RegistryOption = DEFAULT_REGISTRY,
    as_json: JsonFlag = False,
) -> None:
    """Show where an endpoint's traffic goes, and say whether it follows the newest version, and what open streams do.

    A model's endpoint is automatic at first: what is published gets all traffic
    as soon as a worker has it ready. A manual one waits for `inferway rollout`,
    or for arms that `inferway apply` sets.

    Examples:
        inferway endpoint digits
        inferway endpoint digits --manual
        inferway endpoint eta --streams finish
    """
    if manual and automatic:
        raise typer.BadParameter("give one of --manual and --automatic")

    async def act() -> resources_pb2.Endpoint:
        async with Registry(registry) as client:
            found = await client.endpoint(name)
            if streams is None and not manual and not automatic:
                return found
            if manual and not found.arms:
                raise CommandError(f"{name} has no traffic yet; --manual keeps it where it is")
            policy = resources_pb2.StreamPolicy.Value(f"STREAM_POLICY_{(streams or 'unspecified').upper()}")
            follows = automatic or (found.automatic and not manual)
            return await client.set_endpoint(found, automatic=follows, streams=policy)

    row = endpoint_row(run(act()))
    print_json(row) if as_json else _print_row(name, row)


def _print_split(split: dict[str, Any]) -> None:
    total = max(1, sum(split["units"].values()))
    units = [f"{arm} {count:,} ({count / total:.2%})" for arm, count in split["units"].items()]
    out.print(f"units so far: {', '.join(units)}", markup=False)
    out.print(split["explanation"], markup=False)


def _print_row(name: str, row: dict[str, Any]) -> None:
    follows = ", following the newest version" if row["automatic"] else ""
    out.print(f"{name}: {', '.join(pairs(row['arms'])) or 'no traffic yet'}{follows}", markup=False)
    if row["split"]:
        _print_split(row["split"])
    if row["next"]:
        out.print(f"next: {row['next']}, as soon as a worker has it ready", markup=False)
    for rule in row["rules"]:
        out.print(f"calls with {rule}, whatever the weights", markup=False)
    if row["rollout"]:
        out.print(
            f"rollout {row['rollout']} drives it; `inferway rollout status {name}` shows how it goes", markup=False
        )
    out.print(f"streams, when the versions change: {_IN_WORDS[row['streams']]}", markup=False)
