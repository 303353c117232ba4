"""Models, endpoints and rollouts as files say: apply."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Annotated

import typer

from inferway.errors import InferwayError
from inferway_cli.addresses import DEFAULT_REGISTRY, RegistryOption
from inferway_cli.apply.acts import Act, Begin, Plan
from inferway_cli.apply.contents import read_contents
from inferway_cli.apply.documents import Document, ModelDocument
from inferway_cli.apply.doing import Doer
from inferway_cli.apply.nodes import Invalid, Problems
from inferway_cli.apply.plan import make_plan
from inferway_cli.apply.present import Present, read_present
from inferway_cli.apply.rerouting import Prepare
from inferway_cli.apply.sources import read_documents
from inferway_cli.apply.view import fields, plan_dict, print_plan, title
from inferway_cli.apply.waiting import until_followed, until_loaded
from inferway_cli.console import CommandError, JsonFlag, err, note, out, print_json, report, run
from inferway_cli.progress import Step, Steps
from inferway_cli.registry import Registry
from inferway_cli.serving_words import size

DIFFERS = 3
"""Exit code of `--dry-run --exit-code` when there is something to do."""


def apply(
    file: Annotated[str, typer.Option("-f", "--file", metavar="FILE|DIR|-", help="YAML documents; `-` is stdin.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")] = False,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="With --dry-run: exit with 3 if there is something to do.")
    ] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Take away aliases of described models that their documents leave out.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Move traffic, and return, when workers are ready.")] = False,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that --wait waits for each version.")] = 120.0,
    registry: RegistryOption = DEFAULT_REGISTRY,
    as_json: JsonFlag = False,
) -> None:
    """Make models, endpoints and rollouts as files describe them, so that what is served lives in git.

    Shows first what differs, then does it: versions, bounds, policies, aliases,
    endpoints, rollouts. All is checked before anything is done. What somebody
    else changed meanwhile is not overwritten. Applied again, it goes on where it
    stopped, or says that there is nothing to do. Nothing described is deleted, and
    what a document leaves out stays as it is. Paths are relative to their file;
    weights are per cent or basis points. Beside a rollout, arms say where the
    traffic of an endpoint begins; what rollouts have moved is not moved back.

    \b
    A file has documents, with `---` between them:
        kind: Model
        name: digits
        path: build/digits        # published, if no version has this content
        aliases: {champion: this, previous: 2}   # or `latest`
        version_policy: {latest: 2}         # {versions: [1, 3]}, all, named
        serving:
          this: {max_batch_rows: 32, max_queue_delay_ms: 2, instances: 2}
        ---
        kind: Endpoint
        name: digits                        # or any other name
        streams: finish                     # or migrate
        arms:                               # or `automatic: true`
          - {arm: stable, version: digits/champion, weight: 90%}
          - {arm: canary, version: digits/latest, weight: 1000}
        ---
        kind: Rollout                       # `inferway rollout start --help`
        endpoint: line                      # whose traffic has one version
        to: this                            # or 2, champion, latest
        steps: [{weight: 5%, hold: 30s}, {weight: 25%, hold: 30s}]

    Examples:
        inferway apply -f serving.yaml --dry-run
        inferway apply -f serving/ --wait
        inferway apply -f serving/ --dry-run --exit-code
    """  # noqa: D301 - typer's own mark for text that stays as it is
    if exit_code and not dry_run:
        raise typer.BadParameter("it belongs to --dry-run", param_hint="--exit-code")
    try:
        plan = run(_Apply(file, prune, timeout if wait else None, dry_run, as_json).act(registry))
    except Invalid as invalid:
        for problem in invalid.problems:
            report(problem)
        raise typer.Exit(1) from None
    if exit_code and plan.acts:
        raise typer.Exit(DIFFERS)


@dataclass(slots=True)
class _Apply:
    """One run of the command."""

    source: str
    prune: bool
    wait_seconds: float | None
    dry_run: bool
    as_json: bool
    _done: list[Act] = field(default_factory=list)
    _step: Step | None = None

    async def act(self, target: str) -> Plan:
        """Plans, shows, and does; returns the plan. What ended it early is raised, with what was done shown."""
        documents = read_documents(self.source)
        async with Registry(target) as registry:
            plan, present = await self._plan(registry, documents)
            if not self.as_json:
                print_plan(plan)
            error: InferwayError | CommandError | None = None
            try:
                if not self.dry_run:
                    await self._do(registry, plan, present)
            except (InferwayError, CommandError) as raised:
                error = raised
        if self.as_json:
            print_json(plan_dict(plan, self._done, error))
        if error is not None:
            self._tell_what_is_done(plan)
            raise error
        return plan

    async def _plan(self, registry: Registry, documents: list[Document]) -> tuple[Plan, Present]:
        problems = Problems()
        models = [document for document in documents if isinstance(document, ModelDocument)]
        contents = await asyncio.to_thread(read_contents, models, problems)
        problems.raise_if_any()
        present = await read_present(registry, documents)
        return make_plan(documents, contents, present, prune=self.prune), present

    async def _do(self, registry: Registry, plan: Plan, present: Present) -> None:
        steps = Steps(err)
        doer = Doer(registry, present, self._sent, self._prepare(registry))
        for act in plan.acts:
            with steps.step(act.resource) as self._step:
                await doer.do(act)
                self._step.detail = fields(act)
            self._done.append(act)
        if self.wait_seconds is not None:
            with steps.step("load and warm up") as self._step:
                await until_loaded(registry, map(doer.name, plan.named), self.wait_seconds, self._tell)
                await until_followed(registry, map(doer.name, plan.contents), self.wait_seconds, self._tell)
        if plan.acts and not self.as_json:
            out.print("done")
        for act in plan.acts:
            if isinstance(act, Begin):
                note(f"`inferway rollout watch {act.endpoint}` shows how it goes")

    def _prepare(self, registry: Registry) -> Prepare | None:
        """What traffic waits for before it moves; None if it does not wait."""
        seconds = self.wait_seconds
        if seconds is None:
            return None
        return lambda versions: until_loaded(registry, versions, seconds, self._tell)

    def _tell(self, text: str) -> None:
        if self._step is not None:
            self._step.tell(text)

    def _sent(self, sent_bytes: int) -> None:
        self._tell(f"{size(sent_bytes)} sent")

    def _tell_what_is_done(self, plan: Plan) -> None:
        left = [act for act in plan.acts if act not in self._done]
        for words, acts in (("done", self._done), ("not done", left)):
            for act in acts:
                note(f"{words}: {title(act)}")
        if left:
            note(f"`inferway apply -f {self.source}` goes on from here")
