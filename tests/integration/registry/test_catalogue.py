"""Models, versions and aliases over a socket."""

from __future__ import annotations

import asyncio
import base64
import sqlite3
from pathlib import Path

import pytest

from inferway.errors import (
    AliasNotFound,
    EtagMismatch,
    InvalidField,
    InvalidName,
    ModelNotFound,
    ResourceInUse,
    VersionNotFound,
)
from inferway.registry.v1 import endpoint_service_pb2
from inferway.registry.v1 import registry_service_pb2 as pb
from inferway.registry.v1 import resources_pb2 as resources
from tests.integration.registry.client import CALL_SECONDS, Client, refusal, request_id

STATE = resources.ModelVersion


async def set_alias(client: Client, alias: str, version: int, etag: str = "", again: str = "") -> resources.Model:
    """Puts an alias on a version of `digits`."""
    request = pb.SetAliasRequest(
        model="models/digits", alias=resources.Alias(alias=alias, version=version), etag=etag, request_id=again
    )
    return (await client.registry.SetAlias(request, timeout=CALL_SECONDS)).model


async def set_state(client: Client, version: str, state: STATE.State.ValueType, etag: str = "") -> STATE:
    """Withdraws or restores a version."""
    request = pb.SetModelVersionStateRequest(name=version, state=state, etag=etag)
    return (await client.registry.SetModelVersionState(request, timeout=CALL_SECONDS)).model_version


async def get_version(client: Client, version: str) -> STATE:
    """A version."""
    request = pb.GetModelVersionRequest(name=version)
    return (await client.registry.GetModelVersion(request, timeout=CALL_SECONDS)).model_version


async def delete_version(client: Client, version: str, etag: str = "") -> None:
    """Deletes a version."""
    request = pb.DeleteModelVersionRequest(name=version, etag=etag)
    await client.registry.DeleteModelVersion(request, timeout=CALL_SECONDS)


async def delete_model(client: Client, model: str, etag: str = "") -> None:
    """Deletes a model."""
    request = pb.DeleteModelRequest(name=f"models/{model}", etag=etag)
    await client.registry.DeleteModel(request, timeout=CALL_SECONDS)


async def test_aliases_move_and_go(client: Client):
    """Promotion by label is how people release models."""
    await client.push(weights=b"1")
    await client.push(weights=b"2")

    await set_alias(client, "champion", 1)
    moved = await set_alias(client, "champion", 2)
    assert [(alias.alias, alias.version) for alias in moved.aliases] == [("champion", 2)]

    request = pb.DeleteAliasRequest(model="models/digits", alias="champion")
    gone = await client.registry.DeleteAlias(request, timeout=CALL_SECONDS)
    assert not gone.model.aliases
    assert type(await refusal(client.registry.DeleteAlias(request, timeout=CALL_SECONDS))) is AliasNotFound


async def test_a_stale_etag_loses(client: Client):
    """Two operators who look at the same state must not undo each other unseen."""
    await client.push()
    seen = (await client.model("digits")).etag
    await set_alias(client, "a", 1, etag=seen)

    refused = await refusal(set_alias(client, "b", 1, etag=seen))

    assert type(refused) is EtagMismatch
    assert refused.metadata == {
        "resource": "models/digits",
        "expected": seen,
        "actual": (await client.model("digits")).etag,
    }


async def test_of_many_writers_with_one_etag_exactly_one_wins(client: Client):
    """Compare-and-set under contention."""
    await client.push()
    seen = (await client.model("digits")).etag

    results = await asyncio.gather(
        *(set_alias(client, f"a{n}", 1, etag=seen) for n in range(8)), return_exceptions=True
    )

    assert sum(isinstance(result, resources.Model) for result in results) == 1


async def test_a_repeated_request_changes_nothing_twice(client: Client):
    """The second SetAlias would otherwise undo whatever happened between."""
    await client.push(weights=b"1")
    await client.push(weights=b"2")
    again = request_id()
    answered = await set_alias(client, "champion", 1, again=again)
    await set_alias(client, "champion", 2)

    assert await set_alias(client, "champion", 1, again=again) == answered
    assert (await client.model("digits")).aliases[0].version == 2


async def test_a_version_is_withdrawn_and_restored(client: Client):
    """`inferway unload` and its undoing."""
    version = await client.push()

    unloaded = await set_state(client, version.name, STATE.STATE_UNLOADED, etag=version.etag)
    assert unloaded.state == STATE.STATE_UNLOADED
    assert unloaded.etag != version.etag
    assert await set_state(client, version.name, STATE.STATE_UNLOADED) == unloaded
    assert type(await refusal(set_state(client, version.name, STATE.STATE_PUBLISHED, version.etag))) is EtagMismatch
    assert (await set_state(client, version.name, STATE.STATE_PUBLISHED)).state == STATE.STATE_PUBLISHED
    assert type(await refusal(set_state(client, version.name, STATE.STATE_UNSPECIFIED))) is InvalidField


async def test_a_named_version_is_not_deleted(client: Client):
    """Nobody's traffic or label may point at nothing."""
    await client.push(weights=b"1", alias="champion")
    await client.push(weights=b"2")

    refused = await refusal(delete_version(client, "models/digits/versions/1"))
    assert type(refused) is ResourceInUse
    assert refused.metadata["used_by"] == "models/digits alias champion"

    await set_alias(client, "champion", 2)
    await delete_version(client, "models/digits/versions/1")
    assert list((await client.model("digits")).version_numbers) == [2]
    assert type(await refusal(delete_version(client, "models/digits/versions/1"))) is VersionNotFound


async def test_a_deleted_model_leaves_nothing_and_its_numbers_are_not_given_again(client: Client):
    """Every cache in the fleet trusts that a version's name means one content for ever."""
    await client.push(alias="champion")
    etag = (await client.model("digits")).etag
    assert type(await refusal(delete_model(client, "digits", "r0"))) is EtagMismatch

    await delete_model(client, "digits", etag)

    assert type(await refusal(client.model("digits"))) is ModelNotFound
    assert type(await refusal(client.endpoint("digits"))).__name__ == "EndpointNotFound"
    assert (await client.push()).version == 2


async def test_a_model_that_another_endpoint_uses_is_not_deleted(client: Client):
    """Its traffic would have nowhere to go."""
    version = await client.push()
    arm = resources.Arm(arm="all", version=version.name, weight_basis_points=10_000)
    request = endpoint_service_pb2.CreateEndpointRequest(
        endpoint=resources.Endpoint(name="endpoints/front", arms=[arm])
    )
    await client.endpoints.CreateEndpoint(request, timeout=CALL_SECONDS)

    refused = await refusal(delete_model(client, "digits"))

    assert type(refused) is ResourceInUse
    assert refused.metadata == {"resource": "models/digits", "used_by": "endpoints/front"}


async def test_lists_come_in_pages(client: Client):
    """A catalogue of any size can be read with bounded messages."""
    for model in ("c", "a", "b"):
        await client.push(model=model)
    for weights in (b"2", b"3"):
        await client.push(model="a", weights=weights)

    models: list[str] = []
    token = ""
    while not models or token:
        request = pb.ListModelsRequest(page_size=2, page_token=token)
        page = await client.registry.ListModels(request, timeout=CALL_SECONDS)
        models += [model.name for model in page.models]
        token = page.next_page_token
    numbers: list[int] = []
    while not numbers or token:
        versions = pb.ListModelVersionsRequest(parent="models/a", page_size=2, page_token=token)
        older = await client.registry.ListModelVersions(versions, timeout=CALL_SECONDS)
        numbers += [version.version for version in older.model_versions]
        token = older.next_page_token

    assert models == ["models/a", "models/b", "models/c"]
    assert numbers == [3, 2, 1]


HUGE = {"page_token": base64.urlsafe_b64encode(b"versions of digits\n" + b"9" * 40).decode()}
"""Well formed, and larger than any number that a database holds."""


@pytest.mark.parametrize(
    "bad", [{"page_size": -1}, {"page_size": 1001}, {"page_token": "x"}, {"page_token": "eA=="}, HUGE]
)
async def test_bad_pages_are_refused(client: Client, bad: dict[str, object]):
    """A token of another list would silently skip entries."""
    await client.push()
    for call in (
        client.registry.ListModels(pb.ListModelsRequest(**bad), timeout=CALL_SECONDS),  # type: ignore[arg-type]
        client.registry.ListModelVersions(
            pb.ListModelVersionsRequest(parent="models/digits", **bad),  # type: ignore[arg-type]
            timeout=CALL_SECONDS,
        ),
    ):
        refused = await refusal(call)

        assert type(refused) is InvalidField
        assert refused.violations[0].field == next(iter(bad))


async def test_what_is_not_there_is_not_found(client: Client):
    """By the resource that is missing, with its name in the metadata."""
    await client.push()
    missing = pb.ListModelVersionsRequest(parent="models/nope")
    version = "models/digits/versions/7"

    for call, error, metadata in (
        (client.model("nope"), ModelNotFound, {"model": "nope"}),
        (client.registry.ListModelVersions(missing, timeout=CALL_SECONDS), ModelNotFound, {"model": "nope"}),
        (delete_model(client, "nope"), ModelNotFound, {"model": "nope"}),
        (get_version(client, version), VersionNotFound, {"model": "digits", "version": "7"}),
        (delete_version(client, version), VersionNotFound, {"model": "digits", "version": "7"}),
        (set_state(client, version, STATE.STATE_UNLOADED), VersionNotFound, {"model": "digits", "version": "7"}),
        (set_alias(client, "a", 7), VersionNotFound, {"model": "digits", "version": "7"}),
    ):
        refused = await refusal(call)

        assert type(refused) is error
        assert refused.metadata == metadata


async def test_hostile_names_are_refused(client: Client):
    """At every rpc that takes one."""
    await client.push()

    for name in ("digits", "models/../x", "models/" + "x" * 10_000, ""):
        assert type(await refusal(client.registry.GetModel(pb.GetModelRequest(name=name)))) is InvalidName
        assert type(await refusal(get_version(client, name))) is InvalidName
    for alias in ("7", "", "A", "../x"):
        assert type(await refusal(set_alias(client, alias, 1))) is InvalidName
    assert type(await refusal(set_alias(client, "a", 0))) is InvalidField


async def test_every_change_is_audited_with_what_it_replaced(client: Client, tmp_path: Path):
    """Who did what to which resource, in the same transaction as the change."""
    await client.push()
    before = (await client.model("digits")).etag
    again = request_id()
    after = (await set_alias(client, "champion", 1, again=again)).etag

    with sqlite3.connect(tmp_path / "registry.db") as database:
        rows = database.execute(
            "SELECT principal, resource, action, etag_before, etag_after FROM audit WHERE request_id = ?", [again]
        ).fetchall()
    database.close()

    assert rows == [("anonymous", "models/digits", 2, before, after)]
