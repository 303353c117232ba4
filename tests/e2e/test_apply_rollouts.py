"""apply of rollouts, against a real registry: asked for once, however often files are applied."""

from __future__ import annotations

from pathlib import Path

import pytest

from inferway_cli.apply.contents import read_contents
from inferway_cli.apply.documents import ModelDocument
from inferway_cli.apply.doing import Doer
from inferway_cli.apply.nodes import Invalid, Problems
from inferway_cli.apply.plan import make_plan
from inferway_cli.apply.present import read_present
from inferway_cli.apply.sources import read_documents
from inferway_cli.registry import Registry
from inferway_cli.rollouts.named import newest
from tests.e2e.test_apply import ENDPOINT, MODEL, arms, client, folder, write_model
from tests.integration.registry.client import Client
from tests.integration.registry.rollouts import gateway, reached

__all__ = ["client", "folder"]  # fixtures of theirs

STRATEGIES = {
    "defaults": "",
    "canary": "steps: [{weight: 12.5%, hold: 500ms}, {weight: 50%}]\nbaseline: 1m\nbake: 1h\nprepare_timeout: 2m\n"
    "judge: {alpha: 0.01, min_units: 7, error_margin: 1.1, p95_margin: 3, output_margin: 0, errors_not_inferior: 2}\n"
    'match: [{header: x-tester, exact: "1"}, {header: x-team, prefix: a}]\non_inconclusive: roll-back\n',
    "blue-green": "strategy: blue-green\nmirror: {sample: 5%, min_agreement: 0.9, absolute_tolerance: 0.1}\n",
    "shadow": "strategy: shadow\nmin_pairs: 7\nhold: 90s\nmirror: {examples: redacted, relative_tolerance: 0}\n",
}


async def applied(registry: Registry, folder: Path) -> list[str]:
    """Applies the folder's file; the kinds of what had to be done."""
    documents = read_documents(str(folder / "serving.yaml"))
    contents = read_contents([one for one in documents if isinstance(one, ModelDocument)], Problems())
    present = await read_present(registry, documents)
    plan = make_plan(documents, contents, present, prune=False)
    doer = Doer(registry, present, lambda _: None, None)
    for act in plan.acts:
        await doer.do(act)
    return [type(act).__name__ for act in plan.acts]


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_a_rollout_is_asked_for_once(client: Client, folder: Path, strategy: str) -> None:
    """A version and its rollout in one merge; the next merge, about something else, must not begin it again.

    The registry gives back what was asked for with everything said, so whatever a document may say must come back
    equal.
    """
    rollout = f"---\nkind: Rollout\nendpoint: checkout\nto: this\n{STRATEGIES[strategy]}"
    async with Registry(client.target) as registry:
        await applied(registry, folder)
        write_model(folder, b"second")
        (folder / "serving.yaml").write_text(MODEL + ENDPOINT + rollout)
        begun = await applied(registry, folder)
        again = await applied(registry, folder)
        await registry.abort_rollout(newest("checkout"), "enough")
        before = await registry.rollout(newest("checkout"))

        assert begun[0] == "Publish"
        assert begun[-1] == "Begin"
        assert again == []
        assert before.spec.candidate_version == "models/digits/versions/2"
        assert before.stable_version == "models/digits/versions/1"
        assert ("digits/versions/1", 10_000) in (await arms(client, "checkout")).values()


async def test_what_was_rolled_back_is_not_begun_again(client: Client, folder: Path) -> None:
    """The files still ask for it; a person must say that it is worth another try."""
    rollout = "---\nkind: Rollout\nendpoint: checkout\nto: this\n"
    async with Registry(client.target) as registry, gateway(client):
        await applied(registry, folder)
        write_model(folder, b"second")
        (folder / "serving.yaml").write_text(MODEL + ENDPOINT + rollout)
        await applied(registry, folder)
        aborted = await registry.abort_rollout(newest("checkout"), "it was wrong")
        await reached(client, "ROLLED_BACK", aborted.name)

        with pytest.raises(Invalid, match="is ROLLED_BACK: Aborted: it was wrong; `inferway rollout retry checkout`"):
            await applied(registry, folder)
