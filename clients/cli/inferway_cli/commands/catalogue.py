"""Models and their versions: push, alias, models, model, unload, delete."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from inferway.names import check_segment
from inferway.registry.v1 import resources_pb2
from inferway_cli.addresses import DEFAULT_REGISTRY, RegistryOption
from inferway_cli.console import CommandError, JsonFlag, err, note, out, print_json, print_table, run
from inferway_cli.local_model import read_model
from inferway_cli.readiness import until_ready
from inferway_cli.registry import Registry
from inferway_cli.uploads import push
from inferway_cli.version_config import Isolation, find_config, isolation_value, read_config
from inferway_cli.versions import number_of
from inferway_cli.views import endpoint_row, model_row, pairs, version_row

RuntimeName = Literal["tensorflow", "onnx", "litert"]

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The model's name.")]


def push_model(
    name: NameArgument,
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A SavedModel directory, or an .onnx or .tflite file.")],
    alias: Annotated[str, typer.Option(help="Put this alias on the new version.")] = "",
    runtime: Annotated[RuntimeName | None, typer.Option(help="What executes it, if PATH leaves a choice.")] = None,
    isolation: Annotated[Isolation | None, typer.Option(help="Where workers run it; else they use a process.")] = None,
    max_batch_rows: Annotated[int, typer.Option(min=0, help="Batch so many rows at most; 0: as workers like.")] = 0,
    wait: Annotated[bool, typer.Option("--wait", help="Return when a worker has it ready.")] = False,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that --wait waits.")] = 120.0,
    registry: RegistryOption = DEFAULT_REGISTRY,
    as_json: JsonFlag = False,
) -> None:
    """Publish a SavedModel, an ONNX or a LiteRT model as the next version of a model.

    An `inferway.yaml` in the directory or beside it sets description, labels,
    forbid_nan_inputs, idempotent, max_batch_rows, isolation, memory_bytes and state;
    options come before it. A push that broke goes on where it stopped when it
    is repeated.

    Examples:
        inferway push digits ./digits-model --alias champion --wait
        inferway push faces ./faces.onnx --isolation inline
    """
    chosen = resources_pb2.VersionConfig(isolation=isolation_value(isolation), max_batch_rows=max_batch_rows)
    version, newer = run(_push(name, path, runtime or "", chosen, alias, timeout if wait else None, registry))
    if as_json:
        print_json(version_row(version, [resources_pb2.Alias(alias=alias, version=version.version)] if alias else []))
    elif newer is None:
        out.print(f"{name} version {version.version} {'is ready' if wait else 'is published'}", markup=False)
    if newer is not None:
        line = f"published as version {version.version}; version {newer} was published after it and takes the traffic"
        note(line) if as_json else out.print(line)


def set_alias(
    name: NameArgument,
    alias: Annotated[str, typer.Argument(metavar="ALIAS", help="For example `champion`.")],
    version: Annotated[int | None, typer.Argument(metavar="VERSION", min=1, help="The version's number.")] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Take the alias away instead.")] = False,
    registry: RegistryOption = DEFAULT_REGISTRY,
    as_json: JsonFlag = False,
) -> None:
    """Put an alias on a version, moving it if it stands elsewhere.

    Examples:
        inferway alias digits champion 3
        inferway alias digits challenger --remove
    """
    if (version is None) is not remove:
        raise typer.BadParameter("give either VERSION or --remove")

    async def act() -> resources_pb2.Model:
        async with Registry(registry) as client:
            return await (
                client.delete_alias(name, alias) if version is None else client.set_alias(name, alias, version)
            )

    model = model_row(run(act()))
    done = "is gone" if version is None else f"is version {version}"
    print_json(model) if as_json else out.print(f"{alias} of {name} {done}", markup=False)


def list_models(registry: RegistryOption = DEFAULT_REGISTRY, as_json: JsonFlag = False) -> None:
    """List the models.

    Examples:
        inferway models
    """

    async def act() -> list[dict[str, Any]]:
        async with Registry(registry) as client:
            return [model_row(model) for model in await client.models()]

    rows = run(act())
    if as_json:
        print_json(rows)
        return
    shown = [{**row, "aliases": pairs(row["aliases"])} for row in rows]
    print_table("", ("model", "versions", "aliases", "created"), shown, "no models yet: `inferway push NAME PATH`")


def show_model(name: NameArgument, registry: RegistryOption = DEFAULT_REGISTRY, as_json: JsonFlag = False) -> None:
    """Show a model's versions, what they take and give, and how they stand on the workers.

    Examples:
        inferway model digits
    """
    model = run(_read_model(name, registry))
    if as_json:
        print_json(model)
        return
    endpoint = model["endpoint"]
    out.print(f"{name}: {', '.join(pairs(endpoint['arms'])) or 'no traffic yet'}", markup=False)
    if endpoint["next"]:
        out.print(f"next: {endpoint['next']}, as soon as a worker has it ready", markup=False)
    out.print(f"workers keep loaded: {model['version_policy']}", markup=False)
    for version in model["versions"]:
        _print_version(version)


def unload_version(
    name: NameArgument,
    version: Annotated[
        str | None, typer.Option("--version", help="Number or alias; may be left out if there is only one candidate.")
    ] = None,
    restore: Annotated[bool, typer.Option("--restore", help="Bring an unloaded version back.")] = False,
    registry: RegistryOption = DEFAULT_REGISTRY,
    as_json: JsonFlag = False,
) -> None:
    """Withdraw a version from serving, or restore it.

    Workers free its memory, and calls for it are refused until it is restored.

    Examples:
        inferway unload digits --version 2
        inferway unload digits --version 2 --restore
    """

    async def act() -> resources_pb2.ModelVersion:
        state = resources_pb2.ModelVersion.STATE_PUBLISHED if restore else resources_pb2.ModelVersion.STATE_UNLOADED
        async with Registry(registry) as client:
            return await client.set_version_state(name, await _choose(client, name, version, state), state)

    changed = run(act())
    done = "is restored" if restore else "is unloaded"
    print_json(version_row(changed, [])) if as_json else out.print(f"{name} version {changed.version} {done}")


def delete(
    name: NameArgument,
    version: Annotated[int | None, typer.Option("--version", min=1, help="Only this version.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    registry: RegistryOption = DEFAULT_REGISTRY,
) -> None:
    """Delete a model with all its versions, or one version that no arm or alias names.

    Examples:
        inferway delete digits --version 1
        inferway delete digits --yes
    """
    what = f"model {name} with all its versions" if version is None else f"version {version} of {name}"
    if not yes:
        _confirm(what)

    async def act() -> None:
        async with Registry(registry) as client:
            await (client.delete_model(name) if version is None else client.delete_version(name, version))

    run(act())
    out.print(f"deleted {what}", markup=False)


async def _push(
    name: str,
    path: Path,
    runtime: str,
    chosen: resources_pb2.VersionConfig,
    alias: str,
    ready_within_seconds: float | None,
    target: str,
) -> tuple[resources_pb2.ModelVersion, int | None]:
    """The published version, and the one that overtook it while it was waited for."""
    check_segment(name, "NAME")
    config_path = find_config(path)
    config = read_config(config_path) if config_path else resources_pb2.VersionConfig()
    config.MergeFrom(chosen)
    if config_path:
        note(f"with {config_path}")
    local = await asyncio.to_thread(read_model, path, runtime)
    note(f"pushing {path} as {local.kind.title}, {local.total_bytes:,} bytes")
    async with Registry(target) as registry:
        with _progress_bar(local.total_bytes) as bar:
            version = await push(
                registry, name, local, config, alias, lambda sent: bar.update(bar.task_ids[0], completed=sent)
            )
        automatic = (await registry.endpoint(name)).automatic
        if version.version > 1 and automatic:
            note(f"traffic follows the newest version; `inferway endpoint {name} --manual` before a push keeps it")
        if ready_within_seconds is not None:
            if not automatic and not alias and not _keeps_new(await registry.model(name)):
                raise CommandError(
                    f"version {version.version} is published, and nothing asks workers to load it: {name} has manual "
                    f"traffic; `inferway rollout start {name} --to {version.version}` brings it to users"
                )
            newer = await until_ready(registry, version.name, ready_within_seconds, note)
            return await registry.version(version.name), newer
    return version, None


def _keeps_new(model: resources_pb2.Model) -> bool:
    """Whether workers load what is published, though neither traffic nor an alias names it."""
    return model.version_policy.WhichOneof("policy") in {"latest", "all"}


def _progress_bar(total: int) -> Progress:
    columns = (TextColumn("upload"), BarColumn(), DownloadColumn())
    bar = Progress(*columns, console=err, transient=True, disable=not err.is_terminal)
    bar.add_task("upload", total=total)
    return bar


async def _read_model(name: str, target: str) -> dict[str, Any]:
    async with Registry(target) as registry:
        model = await registry.model(name)
        versions = await registry.versions(name)
        endpoint = await registry.endpoint(name)
    return {
        **model_row(model),
        "endpoint": endpoint_row(endpoint),
        "versions": [version_row(version, model.aliases) for version in versions],
    }


def _print_version(version: dict[str, Any]) -> None:
    title = f"\nversion {version['version']}"
    facts = [version["state"], *version["aliases"], f"{version['bytes']:,} bytes", version["created"]]
    out.print(f"[bold]{title}[/bold]  {'  '.join(facts)}")
    for text in (version["description"], ", ".join(f"{key}={value}" for key, value in version["labels"].items())):
        if text:
            out.print(f"  {text}", markup=False)
    if version["serving_options"]:
        out.print(f"  set by an operator: {'; '.join(version['serving_options'])}", markup=False)
    for worker, state in version["workers"].items() or {"workers": "none has it"}.items():
        out.print(f"  {worker}: {'  '.join([state, *version['runs'].get(worker, [])])}", markup=False)
    for signature, sides in version["signatures"].items():
        out.print(f"  {signature}({_tensors(sides['inputs'])}) -> {_tensors(sides['outputs'])}", markup=False)
    for binding in version["state_bindings"]:
        out.print(f"  {_state(binding, version['signatures'][binding['signature']])}", markup=False)


def _state(binding: dict[str, Any], signature: dict[str, Any]) -> str:
    [datatype] = [spec["datatype"] for spec in signature["inputs"] if spec["name"] == binding["input"]]
    zeros = "empty strings" if datatype == "BYTES" else "zeros"
    begin = "a value of the publisher's" if binding["initial"] else zeros
    row = f"{datatype}{_shape(binding['shape'])}"
    return f"{binding['signature']} keeps {row} a row: {binding['output']} -> {binding['input']}, at first {begin}"


def _tensors(specs: list[dict[str, Any]]) -> str:
    return ", ".join(f"{spec['name']}: {spec['datatype']}{_shape(spec['shape'])}" for spec in specs)


def _shape(shape: list[int] | None) -> str:
    return "[...]" if shape is None else f"[{', '.join('?' if size < 0 else str(size) for size in shape)}]"


async def _choose(
    registry: Registry, name: str, version: str | None, state: resources_pb2.ModelVersion.State.ValueType
) -> int:
    """The number of the version that was named, or of the only one that is not in `state` already."""
    if version is not None:
        return await number_of(registry, name, version)
    candidates = [found.version for found in await registry.versions(name) if found.state != state]
    if len(candidates) != 1:
        listed = ", ".join(map(str, sorted(candidates))) or "none"
        raise CommandError(f"--version must say which ({listed} would do); `inferway model {name}` shows them")
    return candidates[0]


def _confirm(what: str) -> None:
    if not sys.stdin.isatty():
        raise CommandError(f"--yes is needed to delete {what} without a terminal")
    typer.confirm(f"Delete {what}?", abort=True)
