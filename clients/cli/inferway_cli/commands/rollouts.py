"""New versions for users, step by step and judged: rollout start, status, watch, list, report and the rest."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from google.protobuf.json_format import MessageToDict

from inferway.registry.v1 import rollouts_pb2
from inferway_cli.addresses import DEFAULT_REGISTRY, RegistryOption
from inferway_cli.apply.nodes import Invalid
from inferway_cli.console import (
    INTERRUPTED,
    CommandError,
    JsonFlag,
    note,
    out,
    print_json,
    print_table,
    report,
    run,
)
from inferway_cli.registry import Registry
from inferway_cli.rollouts.asked import Options, complete, document_of
from inferway_cli.rollouts.named import endpoint_of, full_name, is_over, shown
from inferway_cli.rollouts.page import page
from inferway_cli.rollouts.rows import row
from inferway_cli.rollouts.spec import in_words
from inferway_cli.rollouts.view import change, frame, where
from inferway_cli.rollouts.watch import Watch

NOT_SUCCEEDED = 3
"""Exit code of `watch` when the rollout was rolled back or failed; a shadow fails if its answers differ."""
ALL = "-"
Rollout = rollouts_pb2.Rollout
Strategy = Literal["canary", "blue-green", "shadow"]
Until = Literal["running", "promoting", "baking", "paused", "rolling_back"]

EndpointArgument = Annotated[str, typer.Argument(metavar="ENDPOINT", help="Whose users shall get the version.")]
RolloutArgument = Annotated[
    str, typer.Argument(metavar="ENDPOINT[/N]", help="The endpoint, or one rollout of it, as in digits/3.")
]


def start(
    endpoint: EndpointArgument,
    to: Annotated[
        str | None, typer.Option(metavar="VERSION", help="Number or alias of the version; `other/2` of another model.")
    ] = None,
    strategy: Annotated[Strategy | None, typer.Option(help="Without it, and without a file: canary.")] = None,
    file: Annotated[
        str | None,
        typer.Option("-f", "--file", metavar="FILE|-", help="A document of `kind: Rollout`; options go over it."),
    ] = None,
    steps: Annotated[str | None, typer.Option(metavar="W:T,W:T,...", help="Of a canary: shares, and how long.")] = None,
    baseline: Annotated[
        str | None, typer.Option(metavar="TIME", help="Watch the stable version so long first.")
    ] = None,
    bake: Annotated[str | None, typer.Option(metavar="TIME", help="Judge so long after everybody has it.")] = None,
    min_units: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Requests, or users with a key, needed in each step.")
    ] = None,
    description: Annotated[str | None, typer.Option(metavar="TEXT", help="Shown to people.")] = None,
    supersede: Annotated[bool, typer.Option("--supersede", help="Take the place of an active rollout.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Let the registry check it, and begin nothing.")] = False,
    watch_it: Annotated[bool, typer.Option("--watch", help="Then do as `inferway rollout watch`.")] = False,
    registry: RegistryOption = DEFAULT_REGISTRY,
    as_json: JsonFlag = False,
) -> None:
    """Bring a version to the users of an endpoint, judged by what it does to them, and back by itself if it does harm.

    \b
    canary      a growing share of users; errors, latency and outputs compared
    blue-green  copies of requests are compared, then all users at one moment
    shadow      copies alone: nobody gets an answer of the new version

    \b
    The same as a file, for --file or `inferway apply`; what is left out is usual:
        kind: Rollout
        endpoint: digits
        to: 2
        strategy: canary
        steps: [{weight: 5%, hold: 20s}, {weight: 25%, hold: 20s}]
        baseline: 10s                # the stable version is watched first
        bake: 30s                    # after everybody has it, one switch away
        judge: {min_units: 100, error_margin: 1, p95_margin: 1.25}
        match: [{header: x-tester, exact: "1"}]     # they get it at once
        on_inconclusive: pause       # or roll-back
        mirror: {sample: 100%, min_agreement: 0.98} # blue-green and shadow
        min_pairs: 500                              # the same

    Examples:
        inferway rollout start digits --to 2 --watch
        inferway rollout start digits --to 2 --steps 5%:30s,25%:30s --bake 1m
        inferway rollout start digits --to 3 --strategy shadow --dry-run
        inferway rollout start digits --to 3 -f rollout.yaml --supersede
    """  # noqa: D301 - typer's own mark for text that stays as it is
    document = _valid(document_of, endpoint, file, Options(to, strategy, steps, baseline, bake, min_units, description))

    async def act(client: Registry) -> Rollout:
        spec = await complete(client, document)
        both = supersede or document.supersede
        return await client.create_rollout(endpoint, spec, supersede=both, validate_only=dry_run)

    begun = _ask(registry, act)
    if as_json:
        print_json(_as_dict(begun))
    else:
        _print_begun(begun, dry_run=dry_run)
    if dry_run:
        return
    if watch_it:
        _watch(begun.name, "", registry)
    elif not as_json:
        note(f"`inferway rollout watch {endpoint}` shows how it goes")


def status(
    rollout: Annotated[
        str | None, typer.Argument(metavar="[ENDPOINT[/N]]", help="Without it: the newest rollout of each endpoint.")
    ] = None,
    registry: RegistryOption = DEFAULT_REGISTRY,
    as_json: JsonFlag = False,
) -> None:
    """Show where a rollout stands, why, and what happens next.

    Examples:
        inferway rollout status
        inferway rollout status digits
        inferway rollout status digits/2 --json
    """
    if rollout is None:
        found = _ask(registry, lambda client: client.rollouts(ALL))
        newest = {endpoint_of(one): one for one in reversed(found)}
        _print_rows([newest[endpoint] for endpoint in sorted(newest)], as_json)
        return
    name = full_name(rollout)
    one = _ask(registry, lambda client: client.rollout(name))
    print_json(_as_dict(one)) if as_json else out.print(frame(one, datetime.now(UTC), in_full=True))


def watch(
    rollout: RolloutArgument,
    until: Annotated[Until | None, typer.Option(help="Return when it comes to this state, too.")] = None,
    registry: RegistryOption = DEFAULT_REGISTRY,
) -> None:
    """Watch a rollout until it ends: weights, figures of both versions, evidence, and what happens next and why.

    Exits with 0 if it succeeded and with 3 if it was rolled back or failed, as a
    shadow does whose answers differ. Ctrl-C ends the watching, and not the rollout.
    Without a terminal there are plain lines.
    A paused rollout waits for somebody, and so does this, unless `--until paused`.

    Examples:
        inferway rollout watch digits
        inferway rollout watch digits --until baking
    """
    _watch(full_name(rollout), until or "", registry)


def list_rollouts(
    endpoint: Annotated[
        str, typer.Argument(metavar="[ENDPOINT]", show_default=False, help="Without it: of all endpoints.")
    ] = ALL,
    registry: RegistryOption = DEFAULT_REGISTRY,
    as_json: JsonFlag = False,
) -> None:
    """List rollouts, newest first, and how they ended.

    Examples:
        inferway rollout list
        inferway rollout list digits --json
    """
    _print_rows(_ask(registry, lambda client: client.rollouts(endpoint)), as_json)


def pause(rollout: RolloutArgument, registry: RegistryOption = DEFAULT_REGISTRY, as_json: JsonFlag = False) -> None:
    """Leave the weights as they are until somebody resumes, promotes or aborts. Harm still rolls back.

    Examples:
        inferway rollout pause digits
    """
    _print_state(_ask(registry, lambda client: client.pause_rollout(full_name(rollout))), as_json)


def resume(rollout: RolloutArgument, registry: RegistryOption = DEFAULT_REGISTRY, as_json: JsonFlag = False) -> None:
    """Go on where it was paused; the time of its step begins anew.

    Examples:
        inferway rollout resume digits
    """
    _print_state(_ask(registry, lambda client: client.resume_rollout(full_name(rollout))), as_json)


def promote(
    rollout: RolloutArgument,
    full: Annotated[bool, typer.Option("--full", help="All the way, not to the next step.")] = False,
    registry: RegistryOption = DEFAULT_REGISTRY,
    as_json: JsonFlag = False,
) -> None:
    """Go on to the next step, or all the way, whatever the judge says. Ends a bake, too.

    Examples:
        inferway rollout promote digits
        inferway rollout promote digits --full
    """
    _print_state(_ask(registry, lambda client: client.promote_rollout(full_name(rollout), full=full)), as_json)


def abort(
    rollout: RolloutArgument,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Shown to people.")] = "",
    registry: RegistryOption = DEFAULT_REGISTRY,
    as_json: JsonFlag = False,
) -> None:
    """Give all traffic back to the version before, at once. Wins against everything; after the end it does nothing.

    Examples:
        inferway rollout abort digits --reason "wrong labels"
    """
    _print_state(_ask(registry, lambda client: client.abort_rollout(full_name(rollout), reason)), as_json)


def retry(rollout: RolloutArgument, registry: RegistryOption = DEFAULT_REGISTRY, as_json: JsonFlag = False) -> None:
    """Begin anew what was rolled back or failed.

    Examples:
        inferway rollout retry digits
    """
    _print_state(_ask(registry, lambda client: client.retry_rollout(full_name(rollout))), as_json)


def write_report(
    rollout: RolloutArgument,
    output: Annotated[Path | None, typer.Option("-o", "--output", metavar="FILE", help="Where it goes.")] = None,
    registry: RegistryOption = DEFAULT_REGISTRY,
) -> None:
    """Write what became of a rollout as one HTML page, with plots; also of one that is not over.

    The page needs nothing else: no network, no scripts.

    Examples:
        inferway rollout report digits
        inferway rollout report digits/2 -o digits-2.html
    """
    one = _ask(registry, lambda client: client.rollout(full_name(rollout), samples=True))
    path = output or Path(f"rollout-{shown(one).replace('/', '-')}.html")
    try:
        path.write_text(page(one, datetime.now(UTC)), encoding="utf-8")
    except OSError as error:
        raise CommandError(f"{path} cannot be written: {error.strerror}") from None
    out.print(str(path), markup=False)


COMMANDS: dict[str, Callable[..., None]] = {
    "start": start,
    "status": status,
    "watch": watch,
    "promote": promote,
    "pause": pause,
    "resume": resume,
    "abort": abort,
    "retry": retry,
    "list": list_rollouts,
    "report": write_report,
}


def _ask(target: str, ask: Callable[[Registry], Awaitable[Any]]) -> Any:
    async def act() -> Any:
        async with Registry(target) as client:
            return await ask(client)

    return run(act())


def _valid(make: Callable[..., Any], *arguments: object) -> Any:
    """What `make` returns; every problem of a file has a line."""
    try:
        return make(*arguments)
    except Invalid as invalid:
        for problem in invalid.problems:
            report(problem)
        raise typer.Exit(1) from None


def _watch(name: str, until: str, target: str) -> None:
    ended: list[Rollout] = []

    async def act(client: Registry) -> None:
        ended.append(await Watch(out, until.upper()).follow(client, name))

    try:
        _ask(target, act)
    except typer.Exit as interrupted:
        if interrupted.exit_code == INTERRUPTED:
            endpoint = name.split("/")[1]
            note(f"the rollout goes on; `inferway rollout abort {endpoint}` ends it, and `watch` shows it again")
        raise
    if is_over(ended[0]) and ended[0].state != Rollout.STATE_SUCCEEDED:
        raise typer.Exit(NOT_SUCCEEDED)


def _print_begun(begun: Rollout, *, dry_run: bool) -> None:
    title = "would begin" if dry_run else f"rollout {shown(begun)}"
    out.print(f"{title}: {change(begun)}", markup=False)
    for key, text in in_words(begun.spec).items():
        out.print(f"  {key:<16} {text}", markup=False)
    if begun.next and not dry_run:
        out.print(f"next: {begun.next}", markup=False)


def _print_state(one: Rollout, as_json: bool) -> None:
    if as_json:
        print_json(_as_dict(one))
        return
    out.print(f"rollout {shown(one)}: {where(one)}", markup=False)
    for title, text in (("why", one.reason), ("next", one.next)):
        if text:
            out.print(f"{title}: {text}", markup=False)


def _print_rows(found: list[Rollout], as_json: bool) -> None:
    now = datetime.now(UTC)
    rows = [row(one, now) for one in found]
    if as_json:
        print_json(rows)
        return
    columns = ("rollout", "version", "strategy", "state", "age", "in_short")
    print_table("", columns, rows, "no rollouts yet: `inferway rollout start ENDPOINT --to VERSION`")


def _as_dict(one: Rollout) -> dict[str, Any]:
    return MessageToDict(one, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
