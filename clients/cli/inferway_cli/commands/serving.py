"""How a model is served: why, tune, policy."""

from __future__ import annotations

import time
from typing import Annotated

import typer
from rich.text import Text

from inferway.registry.v1 import resources_pb2
from inferway_cli.addresses import DEFAULT_REGISTRY, RegistryOption
from inferway_cli.commands.catalogue import NameArgument
from inferway_cli.console import CommandError, JsonFlag, note, out, print_json, print_table, run
from inferway_cli.registry import Registry
from inferway_cli.serving_words import policy_in_words
from inferway_cli.tuning import Options, changed, command_line, rows_of, until_reported
from inferway_cli.versions import chosen_version
from inferway_cli.views import model_row
from inferway_cli.why.ask import Answer, ask_workers, having
from inferway_cli.why.report import report_dict, report_lines

VersionOption = Annotated[
    str | None, typer.Option("--version", help="Number or alias; without it, the one with the most traffic.")
]


def why(
    name: NameArgument,
    version: VersionOption = None,
    registry: RegistryOption = DEFAULT_REGISTRY,
    as_json: JsonFlag = False,
) -> None:
    """Explain how a version is served: who runs it, how fast it is, what waits, and why batches went when they did.

    For each worker: how it runs the model and what it tried before, how long
    batches of so many rows take, what waits, the rows that gateways may send, and
    the last batches with the reason of each. The line `In short` at the end says
    what it comes to. docs/engine.md explains every part.

    Examples:
        inferway why digits
        inferway why digits --version 3 --json
    """

    async def act() -> tuple[resources_pb2.ModelVersion, list[Answer]]:
        async with Registry(registry) as client:
            chosen = await chosen_version(client, name, version)
            return chosen, await ask_workers(having(await client.workers(), chosen.name), chosen.name)

    chosen, answers = run(act())
    if not answers:
        raise CommandError(f"no worker has {name} version {chosen.version}; `inferway status` shows the workers")
    now_us = time.time_ns() // 1_000
    if as_json:
        print_json(report_dict(name, chosen, answers, now_us))
        return
    for line in report_lines(name, chosen, answers, now_us):
        out.print(Text(line, style="" if line.startswith(" ") else "bold"))


def tune(
    name: NameArgument,
    version: VersionOption = None,
    max_batch_rows: Annotated[str | None, typer.Option(metavar="N|auto", help="Rows in a batch at most.")] = None,
    max_queue_delay: Annotated[
        str | None, typer.Option(metavar="MS|auto", help="Milliseconds that a batch is held open at most; 0 is never.")
    ] = None,
    buckets: Annotated[
        str | None,
        typer.Option(metavar="N,N,...|auto", help="Sizes to which batches are filled up, for example 1,8,32."),
    ] = None,
    instances: Annotated[str | None, typer.Option(metavar="N|auto", help="Copies of the model on each worker.")] = None,
    reset: Annotated[bool, typer.Option("--reset", help="Hand back every bound that is not given here.")] = False,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for the workers.")] = 15.0,
    registry: RegistryOption = DEFAULT_REGISTRY,
    as_json: JsonFlag = False,
) -> None:
    """Set bounds within which workers tune a version. None is needed; all change while it serves, without a reload.

    Without bounds it shows those that are set. `auto` makes one the worker's own
    choice again. Returns when every worker that serves the version runs it so.

    Examples:
        inferway tune digits --max-batch-rows 32
        inferway tune digits --buckets 1,8,32 --instances 2
        inferway tune digits --max-batch-rows auto
        inferway tune digits --reset
    """
    typed = (max_batch_rows, max_queue_delay, buckets, instances)

    async def act() -> tuple[resources_pb2.ModelVersion, Options, list[dict[str, str]]]:
        async with Registry(registry) as client:
            found = await chosen_version(client, name, version)
            before = found.serving_options
            after = changed(Options() if reset else before, typed)
            if after != before:
                await client.set_serving_options(found, after)
            plans = await until_reported(client, found.name, before, after, timeout)
            return found, after, rows_of(before, after, plans)

    found, after, rows = run(act())
    if as_json:
        print_json({"model": name, "version": found.version, "bounds": rows})
        return
    columns = {key: None for row in rows for key in row}
    print_table(f"{name} version {found.version}", tuple(columns), rows, "")
    if len(columns) == len(("bound", "before", "after")):
        kept = "; the bounds are stored and hold as soon as one does" if after != Options() else ""
        note(f"no worker has the version ready and has said how it runs it{kept}")
    if after != found.serving_options:
        note(f"this undoes it: {command_line(name, found.version, found.serving_options)}")


def policy(
    name: NameArgument,
    latest: Annotated[int | None, typer.Option(min=1, metavar="N", help="Keep the newest N loaded.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Keep all loaded that are published.")] = False,
    versions: Annotated[str | None, typer.Option(metavar="N,N,...", help="Keep these loaded.")] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Keep only what traffic and aliases name.")] = False,
    registry: RegistryOption = DEFAULT_REGISTRY,
    as_json: JsonFlag = False,
) -> None:
    """Say which versions workers keep loaded beside those that traffic and aliases name; or show it.

    A version that stays loaded can take traffic at once. What was unloaded by
    `inferway unload` stays so.

    Examples:
        inferway policy digits --latest 2
        inferway policy digits --versions 1,3
        inferway policy digits --all
        inferway policy digits --clear
        inferway policy digits
    """
    if sum((latest is not None, every, versions is not None, clear)) > 1:
        raise typer.BadParameter("give one of --latest, --all, --versions and --clear")
    wished = _wished(latest, every, versions)

    async def act() -> tuple[resources_pb2.Model, resources_pb2.Model]:
        async with Registry(registry) as client:
            found = await client.model(name)
            if wished is None and not clear:
                return found, found
            return found, await client.set_version_policy(found, wished or resources_pb2.VersionPolicy())

    before, after = run(act())
    if as_json:
        print_json(model_row(after))
        return
    was = "" if before.version_policy == after.version_policy else f" (was: {_kept(before)})"
    out.print(f"{name}: workers keep {_kept(after)}{was}", markup=False)


def _wished(latest: int | None, every: bool, versions: str | None) -> resources_pb2.VersionPolicy | None:
    if latest is not None:
        return resources_pb2.VersionPolicy(latest=latest)
    if every:
        return resources_pb2.VersionPolicy(all=resources_pb2.AllVersions())
    if versions is None:
        return None
    try:
        numbers = sorted({int(number) for number in versions.split(",")})
    except ValueError:
        raise typer.BadParameter(f"{versions!r} is not a list of numbers", param_hint="--versions") from None
    return resources_pb2.VersionPolicy(specific=resources_pb2.SpecificVersions(versions=numbers))


def _kept(model: resources_pb2.Model) -> str:
    return policy_in_words(model.version_policy)
