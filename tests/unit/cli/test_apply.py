"""apply: as typed, against a registry in memory; tests/e2e/test_apply.py does the same with a real one."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from inferway.errors import EtagMismatch
from inferway.registry.v1 import registry_service_pb2, resources_pb2
from tests.unit.cli.conftest import Inferway
from tests.unit.cli.fake_registry import FakeRegistry

MODEL = "kind: Model\nname: affine\npath: affine-model\naliases: {champion: this}\n"


class TroubledRegistry(FakeRegistry):
    """A registry whose answers to SetAlias may be lost, or a refusal."""

    def __init__(self) -> None:
        super().__init__()
        self.lost_answers = 0
        self.alias_refusal: EtagMismatch | None = None
        self.alias_request_ids: list[str] = []

    async def set_alias(self, request: registry_service_pb2.SetAliasRequest) -> Any:
        """Sets, and loses the answer as often as the test wants it."""
        if self.alias_refusal is not None:
            raise self.alias_refusal
        self.alias_request_ids.append(request.request_id)
        answer = await super().set_alias(request)
        if len(self.alias_request_ids) <= self.lost_answers:
            raise ConnectionError
        return answer


@pytest.fixture
async def registry() -> AsyncIterator[TroubledRegistry]:
    """An empty one."""
    async with TroubledRegistry() as registry:
        yield registry


def write(file: Path, text: str) -> None:
    """Replaces the documents."""
    file.write_text(text)


@pytest.fixture
def file(saved_model: Path) -> Path:
    """A document beside the model that it describes."""
    file = saved_model.parent / "serving.yaml"
    file.write_text(MODEL)
    return file


async def test_dry_run_shows_what_would_be_done_and_does_nothing(
    inferway: Inferway, registry: TroubledRegistry, file: Path
):
    """What CI prints under a pull request."""
    done = await inferway("apply", "-f", str(file), "--dry-run")

    assert (done.code, registry.versions) == (0, {}), done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "model affine: to be created"
    assert lines[1].startswith("  + version                  new, SavedModel from")
    assert lines[2] == "  + alias champion           the new version"
    assert lines[-1] == "1 to be created"


async def test_exit_code_tells_ci_whether_there_is_a_difference(inferway: Inferway, file: Path):
    """Drift is found by a job at night; it needs no parsing. On its own the flag would say nothing."""
    before = await inferway("apply", "-f", str(file), "--dry-run", "--exit-code")
    await inferway("apply", "-f", str(file))
    after = await inferway("apply", "-f", str(file), "--dry-run", "--exit-code")
    alone = await inferway("apply", "-f", str(file), "--exit-code")

    assert (before.code, after.code, alone.code) == (3, 0, 2)


async def test_aliases_that_are_not_described_go_only_when_pruned(
    inferway: Inferway, registry: TroubledRegistry, file: Path
):
    """What people set by hand is theirs, until somebody says that the files are all there is."""
    await inferway("apply", "-f", str(file))
    await inferway("alias", "affine", "rival", "1")
    left = await inferway("apply", "-f", str(file))
    kept = dict(registry.aliases["models/affine"])
    pruned = await inferway("apply", "-f", str(file), "--prune")

    assert "nothing to do" in left.stdout
    assert kept == {"champion": 1, "rival": 1}
    assert "  - alias rival              version 1\n" in pruned.stdout
    assert registry.aliases["models/affine"] == {"champion": 1}


async def test_an_act_whose_answer_is_lost_is_asked_for_again_under_its_id(
    inferway: Inferway, registry: TroubledRegistry, file: Path
):
    """A connection that breaks once is no reason to leave things half done, nor to do them twice."""
    registry.lost_answers = 2
    done = await inferway("apply", "-f", str(file))

    assert done.code == 0, done.stderr
    assert len(registry.alias_request_ids) == 3
    assert len(set(registry.alias_request_ids)) == 1


async def test_what_ends_it_says_what_is_done_and_what_is_not(
    inferway: Inferway, registry: TroubledRegistry, file: Path
):
    """Nothing is half done silently, for people and for programs."""
    registry.alias_refusal = EtagMismatch("models/affine has changed since it was read", resource="models/affine")
    failed = await inferway("apply", "-f", str(file), "--json")
    registry.alias_refusal = None
    done = await inferway("apply", "-f", str(file), "--json")

    told = json.loads(failed.stdout)
    assert (failed.code, done.code) == (1, 0)
    assert [(act["fields"], act["done"]) for act in told["acts"]] == [(["version"], True), (["alias champion"], False)]
    assert told["error"]["reason"] == "ETAG_MISMATCH"
    assert failed.stderr.splitlines()[-4:-1] == [
        "done: model affine: version",
        "not done: model affine: alias champion",
        f"`inferway apply -f {file}` goes on from here",
    ]
    assert [act["fields"] for act in json.loads(done.stdout)["acts"]] == [["alias champion"]]
    assert len(registry.versions) == 1


async def test_all_that_is_wrong_is_said_before_anything_is_done(
    inferway: Inferway, registry: TroubledRegistry, file: Path
):
    """The first document is good, and must not be applied alone."""
    arms = "arms: [{version: affine/7, weight: 50%}, {arm: b, version: affine/rival, weight: 50%}]\n"
    write(file, f"{MODEL}---\nkind: Endpoint\nname: e\n{arms}---\nkind: Model\nname: gone\npath: gone\n")
    paths = await inferway("apply", "-f", str(file))
    write(file, f"{MODEL}---\nkind: Endpoint\nname: e\n{arms}")
    versions = await inferway("apply", "-f", str(file))

    assert (paths.code, versions.code, registry.versions) == (1, 1, {})
    assert "serving.yaml:12: path: there is no" in paths.stderr
    told = versions.stderr
    assert "serving.yaml:8: affine has no version 7" in told
    assert "serving.yaml:8: affine has no alias 'rival', and none comes from this apply" in told


async def test_what_streams_do_is_set_while_traffic_stays(inferway: Inferway, registry: TroubledRegistry, file: Path):
    """A document without arms has no opinion on them."""
    await inferway("apply", "-f", str(file))
    write(file, f"{MODEL}---\nkind: Endpoint\nname: affine\nstreams: finish\n")
    done = await inferway("apply", "-f", str(file), "--wait")
    again = await inferway("apply", "-f", str(file), "--wait")

    assert (done.code, again.code) == (0, 0), done.stderr
    assert "  ~ streams                  default -> finish\n" in done.stdout
    assert registry.stream_policies == {"endpoints/affine": resources_pb2.STREAM_POLICY_FINISH}
    assert again.stdout.endswith("nothing to do: 2 resources as described\n")
