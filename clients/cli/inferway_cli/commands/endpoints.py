"""Where traffic goes: endpoint."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from inferway.registry.v1 import resources_pb2
from inferway_cli.addresses import DEFAULT_REGISTRY, RegistryOption
from inferway_cli.console import JsonFlag, out, print_json, run
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
    registry: RegistryOption = DEFAULT_REGISTRY,
    as_json: JsonFlag = False,
) -> None:
    """Show where an endpoint's traffic goes, or say what its open streams do when that changes.

    Examples:
        inferway endpoint digits
        inferway endpoint eta --streams finish
    """

    async def act() -> resources_pb2.Endpoint:
        async with Registry(registry) as client:
            found = await client.endpoint(name)
            if streams is None:
                return found
            return await client.set_stream_policy(
                found, resources_pb2.StreamPolicy.Value(f"STREAM_POLICY_{streams.upper()}")
            )

    row = endpoint_row(run(act()))
    if as_json:
        print_json(row)
        return
    follows = ", following the newest version" if row["automatic"] else ""
    out.print(f"{name}: {', '.join(pairs(row['arms'])) or 'no traffic yet'}{follows}", markup=False)
    if row["next"]:
        out.print(f"next: {row['next']}, as soon as a worker has it ready", markup=False)
    out.print(f"streams, when the versions change: {_IN_WORDS[row['streams']]}", markup=False)
