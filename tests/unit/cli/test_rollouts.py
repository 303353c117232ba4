"""rollout: as typed, against a registry in memory."""

from __future__ import annotations

import asyncio
import io
import json
import re
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from rich.console import Console

from inferway.errors import RolloutActive
from inferway.registry.v1 import resources_pb2, rollout_service_pb2, rollouts_pb2
from inferway_cli.apply.rollout_documents import RolloutDocument
from inferway_cli.apply.sources import read_documents, read_rollout_document
from inferway_cli.registry import Registry
from inferway_cli.rollouts.watch import Watch
from tests.unit.cli.conftest import Inferway
from tests.unit.cli.fake_rollouts import AWAY, CANDIDATE, STABLE, Judgement, Rollout, RolloutRegistry, finding, rollout

ROOT = Path(__file__).parents[3]
SPEC = """\
kind: Rollout
endpoint: affine
to: 2
steps: [{weight: 5%, hold: 20s}, {weight: 25%, hold: 500ms}]
baseline: 10s
bake: 5s
judge: {min_units: 100, output_margin: 0}
match: [{header: x-tester, exact: "1"}]
on_inconclusive: roll-back
description: more epochs
"""


@pytest.fixture
async def registry() -> AsyncIterator[RolloutRegistry]:
    """Versions 1 and 2, and no rollout yet."""
    async with RolloutRegistry() as registry:
        yield registry


def created(registry: RolloutRegistry) -> rollout_service_pb2.CreateRolloutRequest:
    """The one that was asked for."""
    [request] = [one for one in registry.requests if isinstance(one, rollout_service_pb2.CreateRolloutRequest)]
    return request


async def test_a_rollout_needs_no_more_than_a_version(inferway: Inferway, registry: RolloutRegistry):
    """Whatever is not said is the registry's to say; the answer shows all that holds."""
    done = await inferway("rollout", "start", "affine", "--to", "2")

    spec = created(registry).rollout.spec
    assert (done.code, spec.candidate_version, spec.WhichOneof("strategy")) == (0, CANDIDATE, "canary"), done.stderr
    assert len(spec.ListFields()) == 2
    assert done.stdout.splitlines()[0] == "rollout affine/1: affine/1 -> affine/2, canary"
    assert "  bake             10m" in done.stdout.splitlines()
    assert "inferway rollout watch affine" in done.stderr


async def test_options_are_put_over_the_file(inferway: Inferway, registry: RolloutRegistry, tmp_path: Path):
    """One spec serves many versions, and may be shortened for a try."""
    (tmp_path / "rollout.yaml").write_text(SPEC)
    arguments = ("-f", str(tmp_path / "rollout.yaml"), "--to", "affine/1", "--steps", "1%:30s,50%", "--bake", "1m")
    done = await inferway("rollout", "start", "affine", *arguments, "--supersede")

    request = created(registry)
    spec = request.rollout.spec
    assert (done.code, request.supersede, spec.candidate_version) == (0, True, STABLE), done.stderr
    assert [(step.weight_basis_points, step.hold.seconds) for step in spec.canary.steps] == [(100, 30), (5_000, 0)]
    assert not spec.canary.steps[1].HasField("hold")
    assert (spec.baseline.seconds, spec.bake.seconds, spec.judging.min_units) == (10, 60, 100)
    assert (spec.match[0].header, spec.match[0].exact, spec.description) == ("x-tester", "1", "more epochs")
    assert spec.on_inconclusive == rollouts_pb2.ON_INCONCLUSIVE_ROLL_BACK


@pytest.mark.parametrize("typed", ["2", "affine/2", "champion", "latest", "affine/latest"])
async def test_a_version_may_be_said_in_many_ways(inferway: Inferway, registry: RolloutRegistry, typed: str):
    """As everywhere else."""
    registry.aliases["models/affine"] = {"champion": 2}
    done = await inferway("rollout", "start", "affine", "--to", typed)

    assert (done.code, created(registry).rollout.spec.candidate_version) == (0, CANDIDATE), done.stderr


@pytest.mark.parametrize("strategy", ["blue-green", "shadow"])
async def test_copies_are_described_in_the_file_too(
    inferway: Inferway, registry: RolloutRegistry, tmp_path: Path, strategy: str
):
    """Both compare answers to the same requests."""
    mirror = "mirror: {sample: 50%, min_agreement: 0.9, examples: redacted, relative_tolerance: 1e-3}\nmin_pairs: 7\n"
    (tmp_path / "r.yaml").write_text(f"kind: Rollout\nto: 2\nstrategy: {strategy}\n{mirror}")
    done = await inferway("rollout", "start", "affine", "-f", str(tmp_path / "r.yaml"))

    spec = created(registry).rollout.spec
    chosen = spec.shadow if strategy == "shadow" else spec.blue_green
    assert done.code == 0, done.stderr
    assert (chosen.mirror.sample_basis_points, chosen.mirror.min_agreement, chosen.min_pairs) == (5_000, 0.9, 7)
    assert chosen.mirror.examples == rollouts_pb2.EXAMPLE_POLICY_REDACTED
    assert "  mirror           sample 50%, min_agreement 0.9" in done.stdout


async def test_a_dry_run_begins_nothing(inferway: Inferway, registry: RolloutRegistry):
    """The registry checks what only it knows."""
    done = await inferway("rollout", "start", "affine", "--to", "2", "--dry-run", "--watch")

    assert (done.code, created(registry).validate_only, registry.looks) == (0, True, [])
    assert done.stdout.startswith("would begin: affine/1 -> affine/2, canary")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "--to must say which version"),
        (("--to", "rival"), "affine has no alias 'rival'"),
        (("--to", "this"), "`inferway apply` publishes"),
        (("--to", "2", "--steps", "50%,5%"), "--steps must be steps whose weights ascend"),
        (("--to", "2", "--steps", "5%:soon"), "--steps must be a time such as 20s"),
        (("--to", "2", "--strategy", "shadow", "--steps", "5%"), "shadow has none"),
        (("--to", "2", "--bake", "never"), "--bake must be a time such as 20s"),
    ],
)
async def test_what_cannot_be_is_one_line(
    inferway: Inferway, registry: RolloutRegistry, arguments: tuple[str, ...], told: str
):
    """Before anything begins."""
    done = await inferway("rollout", "start", "affine", *arguments)

    assert (done.code, done.stderr.count("\n"), registry.requests) == (1, 1, []), done.stderr
    assert told in done.stderr


async def test_everything_that_is_wrong_with_a_file_has_its_line(inferway: Inferway, tmp_path: Path):
    """A file is put right in one go."""
    file = tmp_path / "r.yaml"
    file.write_text(
        "kind: Rollout\nto: 2\nstepps: []\nbaseline: soon\njudge: {alpha: low}\nmatch: [{header: X-Tester, exact: a}]\n"
        "steps: [{weight: 120%}]\nhold: 3s\n"
    )
    done = await inferway("rollout", "start", "affine", "-f", str(file))

    lines = done.stderr.splitlines()
    assert done.code == 1
    assert [line.split(":")[2] for line in lines] == ["3", "8", "6", "6", "4", "5", "7"]
    assert "did you mean 'steps'" in lines[0]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("bake: 0s", "bake must be a time of more than 0s"),
        ("bake: 721h", "and of 720h at most"),
        ("judge: {alpha: 0.6}", "alpha must be from 1e-09 to 0.5"),
        ("judge: {alpha: 1e-320}", "alpha must be from 1e-09 to 0.5"),
        pytest.param(f"judge: {{alpha: 1{'0' * 400}}}", "alpha must be from 1e-09 to 0.5", id="huge"),
        ("baseline: .nan", "baseline must be a time of more than 0s"),
        ("strategy: blue-green\nhold: 10s", "unknown key 'hold'"),
        ("judge: {error_margin: 0.5}", "error_margin must be a number of times, from 1"),
        ("judge: {output_margin: 0.5}", "output_margin must be 0, or from 1"),
        ("judge: {error_margin: 3, errors_not_inferior: 2}", "must be more than error_margin"),
        ("judge: {min_units: 0}", "min_units must be a number of units, from 1"),
        ("strategy: shadow\nmirror: {min_agreement: 0}", "min_agreement must be more than 0"),
        ("strategy: shadow\nmirror: {sample: 0%}", "sample must be more than 0%"),
        ("steps: [{hold: 5s}]", "weight is missing"),
        ("strategy: green", "strategy must be canary, blue-green or shadow"),
    ],
)
async def test_what_the_registry_would_refuse_is_told_with_its_line(
    inferway: Inferway, registry: RolloutRegistry, tmp_path: Path, text: str, told: str
):
    """`apply` checks all before it does anything, so it must know."""
    (tmp_path / "r.yaml").write_text(f"kind: Rollout\nto: 2\n{text}\n")
    done = await inferway("rollout", "start", "affine", "-f", str(tmp_path / "r.yaml"))

    assert (done.code, registry.requests) == (1, [])
    assert "r.yaml:" in done.stderr
    assert told in done.stderr


async def test_a_refusal_says_what_to_do(inferway: Inferway, registry: RolloutRegistry):
    """Somebody else's rollout is in the way."""
    registry.looks = [RolloutActive("a rollout drives the endpoint")]
    done = await inferway("rollout", "pause", "nobody's")
    gone = await inferway("rollout", "watch", "affine")

    assert done.code == gone.code == 1
    assert "`inferway rollout abort ENDPOINT` ends it" in gone.stderr


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (("pause", "affine"), "endpoints/affine/rollouts/-"),
        (("resume", "affine"), "endpoints/affine/rollouts/-"),
        (("promote", "affine/3", "--full"), "endpoints/affine/rollouts/3"),
        (("abort", "affine", "--reason", "wrong labels"), "endpoints/affine/rollouts/-"),
        (("retry", "affine"), "endpoints/affine/rollouts/-"),
    ],
)
async def test_commands_need_no_number(
    inferway: Inferway, registry: RolloutRegistry, arguments: tuple[str, ...], name: str
):
    """Only one can be active; who means another says so."""
    done = await inferway("rollout", *arguments)

    [request] = registry.requests
    assert (done.code, request.name) == (0, name), done.stderr
    assert bool(request.request_id)
    assert getattr(request, "full", True) is True
    assert getattr(request, "reason", "wrong labels") == "wrong labels"
    assert done.stdout.splitlines()[:2] == ["rollout affine/1: RUNNING step 1 of 2, 0%", "why: as you said"]


async def test_a_name_that_names_nothing_is_refused(inferway: Inferway):
    """Before a call is made."""
    for name in ("affine/x", "affine/0", "AFFINE"):
        assert (await inferway("rollout", "status", name)).code == 1


def under_way() -> Rollout:
    """A canary with figures of everything."""
    figures = {"units": 4_211, "requests": 5_000, "latency": rollouts_pb2.LatencyFigures(p50_us=1_200, p99_us=9_000)}
    findings = [
        finding("errors", Judgement.VERDICT_CONTINUE, 1.955),
        finding("outputs", Judgement.VERDICT_NO_DATA, -3.0),
    ]
    return rollout(
        step=1,
        candidate_weight_basis_points=2_500,
        reason="step 1 was good",
        next="everything, in 12 s",
        stable=rollouts_pb2.ArmFigures(version=STABLE, **figures),  # type: ignore[arg-type]
        candidate=rollouts_pb2.ArmFigures(version=CANDIDATE, errors={"INTERNAL": 26}, **figures),  # type: ignore[arg-type]
        judgement=Judgement(verdict=Judgement.VERDICT_CONTINUE, reason="No harm so far.", findings=findings),
    )


async def test_status_says_where_why_and_what_next(inferway: Inferway, registry: RolloutRegistry):
    """One look must do for somebody who knows nothing of it."""
    registry.looks = [under_way()]
    done = await inferway("rollout", "status", "affine")

    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert lines[0] == "rollout affine/1: affine/1 -> affine/2, canary"
    assert lines[1].startswith("RUNNING step 2 of 2, 25% for ")
    assert lines[2] == f"{'█' * 10}{'░' * 30} 25% affine/2, 75% affine/1"
    assert lines[3] == "steps: 5% for 1m · [25% for 1m] · 100%"
    assert "errors none 26 (0.52%): INTERNAL 26" in lines
    assert "p99 9 ms 9 ms" in lines
    assert f"errors {'█' * 10}{'░' * 10} 7.1 of 50 to 1 no harm so far" in lines
    assert f"outputs {'░' * 20} 0.05 of 50 to 1 too little seen" in lines
    assert {"errors: in words.", "outputs: in words.", "why step 1 was good", "next everything, in 12 s"} <= set(lines)


async def test_status_shows_what_came_of_copies(inferway: Inferway, registry: RolloutRegistry):
    """The verdict of a shadow is in its pairs."""
    mirror = rollouts_pb2.MirrorFigures(
        primary_version=STABLE, mirrored_version=CANDIDATE, pairs=400, agreeing=398, mirrored_errors=2
    )
    mirror.agreement_lower_bound, mirror.agreement_upper_bound = 0.9712, 0.9991
    shadowed = rollout(mirrors=[mirror])
    shadowed.spec.shadow.SetInParent()
    registry.looks = [shadowed]
    done = await inferway("rollout", "status", "affine")

    assert "400 pairs, 99.50% agree; 97.1% to 99.9% with confidence 95%, 98% is asked for" in done.stdout
    assert "failed alone: affine/1 0, affine/2 2" in done.stdout


async def test_lists_have_the_newest_of_each_endpoint_or_all(inferway: Inferway, registry: RolloutRegistry):
    """What a person asks first, and what scripts read."""
    other = rollout(Rollout.STATE_ROLLED_BACK, reason="The canary does harm.")
    other.name = "endpoints/zeta/rollouts/9"
    older = rollout(Rollout.STATE_FAILED)
    older.name = "endpoints/zeta/rollouts/8"
    registry.looks, registry.others = [rollout()], [other, older]
    newest = await inferway("rollout", "status", "--json")
    every = await inferway("rollout", "list")

    assert [row["rollout"] for row in json.loads(newest.stdout)] == ["affine/1", "zeta/9"]
    assert [row["state"] for row in json.loads(newest.stdout)] == ["RUNNING", "ROLLED_BACK"]
    assert "zeta/8" in every.stdout


async def test_the_verdict_of_a_shadow_is_in_the_list(inferway: Inferway, registry: RolloutRegistry):
    """Whoever looks through what was tried must not take a version that differs for one that passed."""
    registry.looks = [rollout(Rollout.STATE_FAILED, reason="Verdict: differs. Too few answers agree. 1 of 9 do.")]
    done = await inferway("rollout", "list")

    assert "FAILED" in done.stdout
    assert "Verdict: differs" in done.stdout
    assert "Too few" not in done.stdout


async def test_the_help_of_list_shows_no_inner_name_for_all_endpoints(inferway: Inferway):
    """`default: -` says nothing to anybody."""
    assert "default: -" not in (await inferway("rollout", "list", "--help")).stdout


async def test_watch_tells_every_change_and_ends_well(inferway: Inferway, registry: RolloutRegistry):
    """Without a terminal there is a line for each thing that happens, and not for each look."""
    good = rollout(Rollout.STATE_SUCCEEDED, reason="all users have it", candidate_weight_basis_points=10_000)
    registry.looks = [rollout(Rollout.STATE_PREPARING, next="learn"), under_way(), AWAY, AWAY, under_way(), good]
    done = await inferway("rollout", "watch", "affine")

    states = [line.split(" for ")[0] for line in done.stdout.splitlines() if not line.startswith("  ")]
    assert done.code == 0, done.stderr
    assert [state for state in states if "registry" not in state] == [
        "affine/1 PREPARING, 0%",
        "affine/1 RUNNING step 2 of 2, 25%",
        "affine/1 RUNNING step 2 of 2, 25%",
        "affine/1 SUCCEEDED",
    ]
    assert done.stdout.count("the registry does not answer") == 1
    assert "errors 0% and 0.52%" in done.stdout
    assert done.stdout.endswith("  why: all users have it\n")


@pytest.mark.parametrize("state", [Rollout.STATE_ROLLED_BACK, Rollout.STATE_FAILED])
async def test_watch_tells_scripts_that_it_did_not_succeed(
    inferway: Inferway, registry: RolloutRegistry, state: Rollout.State.ValueType
):
    """A pipeline must not go on with a version that was taken back."""
    registry.looks = [rollout(state)]
    assert (await inferway("rollout", "watch", "affine")).code == 3
    assert (await inferway("rollout", "start", "affine", "--to", "2", "--watch")).code == 3


async def test_watch_returns_at_the_state_that_was_waited_for(inferway: Inferway, registry: RolloutRegistry):
    """A script may want to do something in the bake."""
    registry.looks = [rollout(), rollout(Rollout.STATE_BAKING)]
    done = await inferway("rollout", "watch", "affine", "--until", "baking")

    assert done.code == 0, done.stderr
    assert "BAKING, 0%" in done.stdout


async def test_watch_stays_with_the_rollout_that_it_began_with(inferway: Inferway, registry: RolloutRegistry):
    """A newer one of the same endpoint is another story."""
    registry.looks = [rollout(), rollout(Rollout.STATE_SUCCEEDED)]
    await inferway("rollout", "watch", "affine")

    assert [one.name for one in registry.requests] == ["endpoints/affine/rollouts/-", "endpoints/affine/rollouts/1"]


async def test_on_a_terminal_the_view_fits_and_ends_with_the_last_look(registry: RolloutRegistry):
    """A short terminal cuts the end off; what happens next and why must not be there."""
    registry.looks = [under_way(), rollout(Rollout.STATE_SUCCEEDED, reason="all users have it")]
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80, height=24)
    async with Registry(registry.target) as client:
        last = await Watch(console).follow(client, "endpoints/affine/rollouts/-")

    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue())
    lines = shown.splitlines()
    assert last.state == Rollout.STATE_SUCCEEDED
    assert max(map(len, lines)) <= 80
    assert "next  everything, in 12 s" in [line.rstrip() for line in lines[:8]]
    assert "why   all users have it" in shown


async def test_ctrl_c_ends_the_watching_and_not_the_rollout(registry: RolloutRegistry):
    """Nobody must be afraid to look, nor to look away."""
    registry.looks = [under_way()]
    command = (sys.executable, "-m", "inferway_cli", "rollout", "watch", "affine", "--registry", registry.target)
    watching = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=PIPE)
    assert watching.stdout is not None
    async with asyncio.timeout(30):
        first = await watching.stdout.readline()
        watching.send_signal(signal.SIGINT)
        _, told = await watching.communicate()

    assert first.startswith(b"affine/1 RUNNING")
    assert watching.returncode == 130
    assert b"the rollout goes on; `inferway rollout abort affine` ends it" in told
    assert not [one for one in registry.requests if isinstance(one, rollout_service_pb2.AbortRolloutRequest)]


@pytest.mark.parametrize("page", ["docs/rollouts.md", "docs/tutorial-rollout.md"])
def test_specs_in_the_documentation_can_be_read(tmp_path: Path, page: str):
    """They are what people copy first."""
    blocks = re.findall(r"^```yaml\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        (tmp_path / "copied.yaml").write_text(block)
        [document] = read_documents(str(tmp_path / "copied.yaml"))
        assert isinstance(document, RolloutDocument)


@pytest.mark.parametrize("spec", sorted((ROOT / "examples" / "digits").glob("*.yaml")), ids=lambda path: path.name)
def test_specs_of_the_examples_can_be_read(spec: Path):
    """The tutorial uses them with a version."""
    assert read_rollout_document(str(spec)).name == "digits"


@pytest.mark.parametrize(("unloaded", "version"), [((2,), STABLE), ((1, 2), "")])
async def test_the_latest_version_is_one_that_can_be_served(
    inferway: Inferway, registry: RolloutRegistry, unloaded: tuple[int, ...], version: str
):
    """What was withdrawn is not what anybody means by `latest`."""
    for number in unloaded:
        name = f"models/affine/versions/{number}"
        registry.versions[name].state = resources_pb2.ModelVersion.STATE_UNLOADED

    done = await inferway("rollout", "start", "affine", "--to", "latest")

    if version:
        assert created(registry).rollout.spec.candidate_version == version
    else:
        assert (done.code, "no version that could be served" in done.stderr) == (1, True)
