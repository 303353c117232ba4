"""apply: as typed, against a real registry. Files say how things shall be; the registry is read back."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from inferway.errors import EtagMismatch
from inferway.registry.v1.registry_service_pb2 import GetModelVersionRequest
from inferway.registry.v1.resources_pb2 import STREAM_POLICY_FINISH
from inferway.registry.v1.watch_service_pb2 import WatchRoutingRequest
from inferway_chassis.channel import open_channel
from inferway_chassis.testing import serving
from inferway_cli.apply.contents import read_contents
from inferway_cli.apply.documents import ModelDocument
from inferway_cli.apply.doing import Doer
from inferway_cli.apply.nodes import Problems
from inferway_cli.apply.plan import make_plan
from inferway_cli.apply.present import read_present
from inferway_cli.apply.sources import read_documents
from inferway_cli.registry import Registry
from inferway_registry.app import running
from inferway_registry.settings import RegistrySettings
from tests.integration.registry.client import CALL_SECONDS, Client
from tests.integration.registry.test_fleet import ready, report
from tests.unit.registry.graphs import model_files

WAIT_SECONDS = 30

MODEL = """\
kind: Model
name: digits
path: model
aliases: {champion: this}
version_policy: {latest: 2}
serving:
  this: {max_batch_rows: 32, max_queue_delay_ms: 2, buckets: [8, 32], instances: 2}
"""
ENDPOINT = """\
---
kind: Endpoint
name: checkout
salt: checkout-2026
streams: finish
arms:
  - {version: digits/champion, weight: 100%}
"""


@dataclass(frozen=True, slots=True)
class Done:
    """A command that ended."""

    code: int
    stdout: str
    stderr: str


Apply = Callable[..., Coroutine[Any, Any, Done]]


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    """A client of a fresh registry."""
    settings = RegistrySettings(
        grpc_address="127.0.0.1:0", metrics_address="", data_dir=tmp_path / "data", drain_seconds=0, grace_seconds=1
    )
    async with (
        serving(running, settings, "registry") as server,
        open_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        yield Client(channel, f"127.0.0.1:{server.port}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What lives in git: documents, and a model beside them."""
    folder = tmp_path / "serving"
    write_model(folder, b"first")
    (folder / "serving.yaml").write_text(MODEL + ENDPOINT)
    return folder


@pytest.fixture
def apply(client: Client, folder: Path) -> Apply:
    """Runs `inferway apply -f` of the folder's file."""

    async def run(*arguments: str) -> Done:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "inferway_cli", "apply", "-f", str(folder / "serving.yaml"), *arguments),
            env={**os.environ, "INFERWAY_REGISTRY": client.target, "COLUMNS": "200"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(WAIT_SECONDS):
            stdout, stderr = await process.communicate()
        assert process.returncode is not None
        return Done(process.returncode, stdout.decode(), stderr.decode())

    return run


def write_model(folder: Path, weights: bytes, name: str = "model") -> None:
    """A SavedModel of these weights."""
    for path, data in model_files(weights).items():
        (folder / name / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / name / path).write_bytes(data)


async def arms(client: Client, endpoint: str) -> dict[str, tuple[str, int]]:
    """Version and weight by arm."""
    found = await client.endpoint(endpoint)
    return {arm.arm: (arm.version.removeprefix("models/"), arm.weight_basis_points) for arm in found.arms}


async def test_an_empty_registry_becomes_what_the_files_say(client: Client, apply: Apply):
    """The whole promise: clone, apply, served."""
    done = await apply()

    assert done.code == 0, done.stderr
    model, endpoint = await client.model("digits"), await client.endpoint("checkout")
    request = GetModelVersionRequest(name="models/digits/versions/1")
    version = (await client.registry.GetModelVersion(request, timeout=CALL_SECONDS)).model_version
    assert [(alias.alias, alias.version) for alias in model.aliases] == [("champion", 1)]
    assert model.version_policy.latest == 2
    bounds = version.serving_options
    assert (bounds.max_batch_rows, list(bounds.buckets), bounds.instances) == (32, [8, 32], 2)
    assert bounds.max_queue_delay.ToMilliseconds() == 2
    assert await arms(client, "checkout") == {"v1": ("digits/versions/1", 10_000)}
    assert (endpoint.salt, endpoint.stream_policy) == ("checkout-2026", STREAM_POLICY_FINISH)


async def test_applied_twice_there_is_nothing_to_do(client: Client, apply: Apply):
    """What runs at every merge must not publish at every merge."""
    await apply()
    model, endpoint = await client.model("digits"), await client.endpoint("checkout")

    again = await apply()
    checked = await apply("--dry-run", "--exit-code")

    assert (again.code, checked.code) == (0, 0), again.stderr
    assert again.stdout.splitlines()[-1] == "nothing to do: 2 resources as described"
    assert (await client.model("digits"), await client.endpoint("checkout")) == (model, endpoint)


async def test_a_change_of_the_files_is_shown_and_then_done(client: Client, apply: Apply, folder: Path):
    """New weights beside the old: what a release looks like in a pull request."""
    await apply()
    write_model(folder, b"second")
    canary = "  - {version: digits/1, weight: 9000}\n  - {arm: canary, version: digits/latest, weight: 10%}\n"
    (folder / "serving.yaml").write_text(
        MODEL + ENDPOINT.replace("  - {version: digits/champion, weight: 100%}\n", canary)
    )

    shown = await apply("--dry-run", "--exit-code", "--json")
    untouched = await client.model("digits")
    done = await apply()

    assert (shown.code, done.code) == (3, 0), done.stderr
    assert list(untouched.version_numbers) == [1]
    told = {resource["resource"]: resource for resource in json.loads(shown.stdout)["resources"]}
    assert told["endpoint checkout"]["action"] == "change"
    assert told["endpoint checkout"]["differences"] == [
        {"field": "arm v1", "before": "digits/1 100%", "after": "digits/1 90%"},
        {"field": "arm canary", "before": "", "after": "digits/new 10%"},
    ]
    assert await arms(client, "checkout") == {
        "v1": ("digits/versions/1", 9_000),
        "canary": ("digits/versions/2", 1_000),
    }
    assert [alias.version for alias in (await client.model("digits")).aliases] == [2]


async def test_other_choices_are_another_version_of_the_same_content(client: Client, apply: Apply, folder: Path):
    """A version is immutable: what its publisher chose is part of it. Defaults that are spelled out change nothing."""
    await apply()
    (folder / "inferway.yaml").write_text("idempotent: true\nisolation: process\n")
    same = await apply()
    (folder / "inferway.yaml").write_text("forbid_nan_inputs: [x]\n")
    other = await apply()

    assert "nothing to do" in same.stdout, same.stdout + same.stderr
    assert "its config differs from version 1's" in other.stdout
    assert list((await client.model("digits")).version_numbers) == [1, 2]


async def test_going_back_in_git_goes_back_to_the_old_version(client: Client, apply: Apply, folder: Path):
    """Nothing is published a second time; alias and traffic return to what has the content."""
    await apply()
    write_model(folder, b"second")
    await apply()
    write_model(folder, b"first")

    done = await apply()

    assert done.code == 0, done.stderr
    assert list((await client.model("digits")).version_numbers) == [1, 2]
    assert await arms(client, "checkout") == {"v1": ("digits/versions/1", 10_000)}


async def test_what_was_refused_in_the_middle_goes_on_where_it_stopped(client: Client, apply: Apply, folder: Path):
    """It says what is done and what is not, and the repetition does the rest and no more."""
    write_model(folder, b"other", "other")
    (folder / "other" / "saved_model.pb").write_bytes(b"no graph at all")
    other = "---\nkind: Model\nname: other\npath: other\naliases: {champion: this}\n"
    (folder / "serving.yaml").write_text(MODEL + other + ENDPOINT)

    refused = await apply()
    half = await client.model("digits")
    write_model(folder, b"other", "other")
    done = await apply()

    assert refused.code == 1
    lines = refused.stderr.splitlines()
    assert "done: model digits: version" in lines
    assert {"not done: model other: version", "not done: endpoint checkout: arm v?, salt, streams"} <= set(lines)
    assert "error: " in lines[-1]
    assert (list(half.version_numbers), list(half.aliases)) == ([1], [])
    assert done.code == 0, done.stderr
    assert list((await client.model("digits")).version_numbers) == [1]
    assert list((await client.model("other")).version_numbers) == [1]
    assert await arms(client, "checkout") == {"v1": ("digits/versions/1", 10_000)}


async def test_traffic_waits_for_workers_and_is_not_taken_from_somebody_else(
    client: Client, apply: Apply, folder: Path
):
    """With --wait a new version is loaded before it gets traffic; who changes the endpoint meanwhile is not undone."""
    await apply()
    write_model(folder, b"second")

    async with asyncio.TaskGroup() as tasks:
        slow = tasks.create_task(apply("--wait"))
        await endpoint_with(client, "v2")
        waiting = await arms(client, "checkout")
        (folder / "serving.yaml").write_text(MODEL + ENDPOINT.replace("digits/champion", "digits/1"))
        quick = await apply()
        await report(client, "w0", ready("models/digits/versions/2"))

    assert waiting == {"v1": ("digits/versions/1", 10_000), "v2": ("digits/versions/2", 0)}
    assert quick.code == 0, quick.stderr
    assert slow.result().code == 1
    assert "somebody else changed it; try again" in slow.result().stderr
    assert "not done: endpoint checkout" in slow.result().stderr
    assert await arms(client, "checkout") == {"v1": ("digits/versions/1", 10_000)}


async def test_with_wait_traffic_moves_when_a_worker_is_ready(client: Client, apply: Apply, folder: Path):
    """A deploy must not fail the calls of the seconds in which the new version loads."""
    await apply()
    write_model(folder, b"second")

    async with asyncio.TaskGroup() as tasks:
        applied = tasks.create_task(apply("--wait"))
        await endpoint_with(client, "v2")
        await report(client, "w0", ready("models/digits/versions/2"))

    assert applied.result().code == 0, applied.result().stderr
    assert await arms(client, "checkout") == {"v2": ("digits/versions/2", 10_000)}


async def test_what_moves_by_itself_is_no_conflict(client: Client, apply: Apply, folder: Path):
    """Publishing makes and moves a model's own endpoint, between the plan and the act that concerns it."""
    own = "---\nkind: Endpoint\nname: digits\nstreams: finish\n"
    (folder / "serving.yaml").write_text(MODEL + own + "arms: [{version: latest}]\n")
    first = await apply()
    fixed = await client.endpoint("digits")
    write_model(folder, b"second")
    (folder / "serving.yaml").write_text(MODEL + own + "automatic: true\n")
    second = await apply()
    write_model(folder, b"third")
    (folder / "serving.yaml").write_text(MODEL + own.replace("finish", "migrate") + "automatic: true\n")
    third = await apply()
    followed = await client.endpoint("digits")

    assert (first.code, second.code, third.code) == (0, 0, 0), first.stderr + second.stderr + third.stderr
    assert (fixed.automatic, fixed.arms[0].version) == (False, "models/digits/versions/1")
    assert (followed.automatic, followed.next_version) == (True, "models/digits/versions/3")


@pytest.mark.parametrize("others_act", ["alias", "publish"])
async def test_two_who_apply_at_once_are_told(client: Client, apply: Apply, folder: Path, others_act: str):
    """The second would otherwise undo what the first has just done, having never seen it."""
    await apply()
    write_model(folder, b"second")
    documents = read_documents(str(folder / "serving.yaml"))
    contents = read_contents([one for one in documents if isinstance(one, ModelDocument)], Problems())
    async with Registry(client.target) as registry:
        present = await read_present(registry, documents)
        plan = make_plan(documents, contents, present, prune=False)
        if others_act == "alias":
            await registry.set_alias("digits", "rival", 1)
        else:
            await client.push(weights=b"rival")
        theirs = await client.model("digits")

        with pytest.raises(EtagMismatch):
            await Doer(registry, present, lambda _: None, None).do(plan.acts[0])

    assert await client.model("digits") == theirs


async def endpoint_with(client: Client, arm: str) -> None:
    """Returns when the endpoint `checkout` has the arm."""
    call = client.watch.WatchRouting(WatchRoutingRequest(watcher="test"), timeout=WAIT_SECONDS)
    async for response in call:
        for endpoint in response.snapshot.endpoints:
            if endpoint.name == "endpoints/checkout" and arm in [found.arm for found in endpoint.arms]:
                call.cancel()
                return
    raise AssertionError(f"the endpoint never had {arm}")
