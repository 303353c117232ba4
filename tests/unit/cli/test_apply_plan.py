"""apply: what would have to change, from what is there and what is described; pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from inferway.registry.v1 import resources_pb2, rollouts_pb2
from inferway.type.v1 import tensor_pb2
from inferway_cli.apply.acts import Begin, Plan, Publish
from inferway_cli.apply.contents import read_contents
from inferway_cli.apply.documents import ModelDocument
from inferway_cli.apply.nodes import Invalid, Problems
from inferway_cli.apply.plan import make_plan
from inferway_cli.apply.present import Present
from inferway_cli.apply.sources import read_documents
from inferway_cli.local_model import read_model
from inferway_cli.rollouts.spec import with_defaults

Planned = Callable[..., Plan]
STATE = rollouts_pb2.Rollout


@pytest.fixture
def planned(saved_model: Path) -> Planned:
    """Plans a text beside a model `affine-model`."""

    def plan(text: str, present: Present, *, prune: bool = False) -> Plan:
        file = saved_model.parent / "serving.yaml"
        file.write_text(text)
        documents = read_documents(str(file))
        problems = Problems()
        contents = read_contents([one for one in documents if isinstance(one, ModelDocument)], problems)
        problems.raise_if_any()
        return make_plan(documents, contents, present, prune=prune)

    return plan


def version(number: int, **fields: object) -> resources_pb2.ModelVersion:
    """A published version of `affine`."""
    name = f"models/affine/versions/{number}"
    state = fields.pop("state", resources_pb2.ModelVersion.STATE_PUBLISHED)
    return resources_pb2.ModelVersion(name=name, version=number, state=state, **fields)  # type: ignore[arg-type]


def there(*versions: resources_pb2.ModelVersion, endpoint: resources_pb2.Endpoint | None = None) -> Present:
    """A registry with these versions of `affine`, newest first, the last of them its champion."""
    model = resources_pb2.Model(
        name="models/affine",
        version_numbers=sorted(found.version for found in versions),
        aliases=[resources_pb2.Alias(alias="champion", version=versions[-1].version)],
    )
    return Present({"affine": model}, {"affine": versions}, {"affine": endpoint} if endpoint else {})


def differences(plan: Plan) -> list[tuple[str, str, str]]:
    """Field, before and after, of every act."""
    return [(d.field, d.before, d.after) for act in plan.acts for d in act.differences]


def refused(planned: Planned, text: str, present: Present, *, prune: bool = False) -> str:
    """What is wrong."""
    with pytest.raises(Invalid) as caught:
        planned(text, present, prune=prune)
    return str(caught.value)


def test_versions_come_before_aliases_and_aliases_before_traffic(planned: Planned):
    """Each names what came before it; what goes, goes when nothing needs it any more."""
    text = (
        "kind: Endpoint\nname: checkout\narms: [{version: affine/rival}]\n---\n"
        "kind: Model\nname: affine\npath: affine-model\nversion_policy: all\naliases: {rival: this}\n"
        "serving: {this: {instances: 2}}\n"
    )
    plan = planned(text, there(version(1)), prune=True)

    kinds = [type(act).__name__ for act in plan.acts]
    assert kinds == ["Publish", "Tune", "Keep", "PutAlias", "Route", "DropAlias"]
    assert plan.created == {"endpoint checkout"}


def test_state_that_the_registry_filled_in_is_no_difference(planned: Planned, saved_model: Path):
    """What is published has signature and shape of every binding; its publisher wrote neither."""
    (saved_model / "inferway.yaml").write_text("state: [{output: next, input: state}]\n")
    manifest = read_model(saved_model).manifest
    text = "kind: Model\nname: affine\npath: affine-model\n"

    def published(initial: bytes) -> Present:
        binding = resources_pb2.StateBinding(signature="step", output="next", input="state", shape=[8], initial=initial)
        config = resources_pb2.VersionConfig(state=[binding])
        signatures = [tensor_pb2.Signature(name="step")]
        runtime = resources_pb2.RUNTIME_TENSORFLOW
        return there(version(1, manifest=manifest, config=config, signatures=signatures, runtime=runtime))

    assert planned(text, published(b"")).acts == ()
    assert [type(act) for act in planned(text, published(b"1234")).acts] == [Publish]


def test_what_was_unloaded_is_not_published_again(planned: Planned, saved_model: Path):
    """Somebody withdrew it at night; the next merge must not bring it back under another number."""
    unloaded = version(
        2,
        manifest=read_model(saved_model).manifest,
        runtime=resources_pb2.RUNTIME_TENSORFLOW,
        state=resources_pb2.ModelVersion.STATE_UNLOADED,
    )
    told = refused(planned, "kind: Model\nname: affine\npath: affine-model\n", there(unloaded, version(1)))
    assert "serving.yaml:3: path: version 2 has this content and was unloaded; `inferway unload affine" in told


def test_bounds_are_compared_one_by_one(planned: Planned):
    """What a document leaves out of a version's bounds is handed back to the worker."""
    tuned = version(1, serving_options=resources_pb2.ServingOptions(max_batch_rows=8, instances=2))
    plan = planned("kind: Model\nname: affine\nserving: {1: {instances: 3}}\n", there(tuned))
    assert differences(plan) == [
        ("version 1 max_batch_rows", "8", "auto"),
        ("version 1 instances", "2", "3"),
    ]


def test_arms_are_compared_with_those_that_are_there(planned: Planned):
    """Their order too: which units get which arm depends on it."""
    arms = [
        resources_pb2.Arm(arm=f"v{n}", version=f"models/affine/versions/{n}", weight_basis_points=5_000) for n in (1, 2)
    ]
    present = there(version(2), version(1), endpoint=resources_pb2.Endpoint(arms=arms, salt="s"))
    entries = ["{version: 1, weight: 50%}", "{version: latest, weight: 5000}"]
    text = "kind: Endpoint\nname: affine\nsalt: s\narms: [{}, {}]\n"

    assert planned(text.format(*entries), present).acts == ()
    assert differences(planned(text.format(*reversed(entries)), present)) == [("order of arms", "v1, v2", "v2, v1")]
    moved = planned("kind: Endpoint\nname: affine\narms: [{version: champion}]\n", present)
    assert differences(moved) == [("arm v1", "affine/1 50%", "affine/1 100%"), ("arm v2", "affine/2 50%", "")]


ARMS = "kind: Endpoint\nname: affine\narms: [{{version: {}, weight: 50%}}, {{version: {}, weight: 50%}}]\n"
SERVING = "kind: Model\nname: affine\nserving: {{{}: {{{}}}}}\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("kind: Model\nname: other\n", "1: there is no model 'other' yet, so it needs a path"),
        ("kind: Endpoint\nname: other\n", "1: there is no endpoint 'other' yet, so it needs arms"),
        ("kind: Endpoint\nname: other\nautomatic: true\n", "1: there is no model 'other' to follow"),
        ("kind: Endpoint\nname: e\narms: [{version: other/latest}]\n", "3: other has no version, and none comes"),
        ("kind: Endpoint\nname: e\narms: [{version: affine/3}]\n", "3: affine/3 is unloaded; `inferway unload"),
        ("kind: Model\nname: affine\naliases: {champion: 9}\n", "3: affine has no version 9"),
        ("kind: Model\nname: affine\nversion_policy: {versions: [1, 9]}\n", "3: affine has no version 9"),
        (ARMS.format(1, "champion"), "3: another arm has the name 'v1' too"),
        ("kind: Model\nname: affine\npath: affine-model\n---\n" + ARMS.format("latest", "other/1"), "7: other has no"),
        (SERVING.format(1, "max_batch_rows: 17"), "3: max_batch_rows: the version is published with at most 16"),
        (SERVING.format(1, "buckets: [1, 32]"), "3: buckets: a batch has at most 16 rows"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_done(planned: Planned, text: str, problem: str):
    """The registry would refuse it, too, but after other acts."""
    limited = version(1, config=resources_pb2.VersionConfig(max_batch_rows=16))
    present = there(version(3, state=resources_pb2.ModelVersion.STATE_UNLOADED), version(2), limited)
    assert f"serving.yaml:{problem}" in refused(planned, text, present)


def test_a_new_version_and_a_named_arm_may_not_meet_in_a_name(planned: Planned):
    """Its number is unknown, so that `arm: v2` could be what its own arm will be called."""
    arms = "arms: [{version: affine/latest, weight: 50%}, {arm: v2, version: affine/1, weight: 50%}]\n"
    text = f"kind: Model\nname: affine\npath: affine-model\n---\nkind: Endpoint\nname: e\n{arms}"
    assert "another arm has the name 'v2' too, or may get it" in refused(planned, text, there(version(1)))
    assert planned(text.replace("arm: v2", "arm: stable"), there(version(1))).acts


def test_traffic_may_not_name_an_alias_that_is_pruned(planned: Planned):
    """It would stand on what goes in the same breath."""
    text = "kind: Model\nname: affine\n---\nkind: Endpoint\nname: e\narms: [{version: affine/champion}]\n"
    assert planned(text, there(version(1))).acts
    assert "affine has no alias 'champion'" in refused(planned, text, there(version(1)), prune=True)


ROLLOUT = "kind: Rollout\nendpoint: affine\nto: 2\nbake: 30s\n"


def driven(rollout: rollouts_pb2.Rollout | None = None, *, traffic: int = 1, automatic: bool = False) -> Present:
    """Versions 1 and 2, and an endpoint whose traffic goes to one of them."""
    arm = resources_pb2.Arm(arm="v1", version=f"models/affine/versions/{traffic}", weight_basis_points=10_000)
    endpoint = resources_pb2.Endpoint(name="endpoints/affine", arms=[arm], automatic=automatic)
    present = there(version(2), version(1), endpoint=endpoint)
    return replace(present, rollouts={"affine": rollout} if rollout else {})


def asked(state: rollouts_pb2.Rollout.State.ValueType, candidate: int = 2) -> rollouts_pb2.Rollout:
    """A rollout of the same spec; as the registry gives it back, with all that was left out."""
    spec = rollouts_pb2.RolloutSpec(candidate_version=f"models/affine/versions/{candidate}")
    spec.canary.SetInParent()
    spec.bake.FromSeconds(30)
    return rollouts_pb2.Rollout(name="endpoints/affine/rollouts/3", spec=with_defaults(spec), state=state)


def test_a_rollout_begins_and_shows_what_it_is_asked_for(planned: Planned):
    """What a reviewer of the file wants to see; what is left out is there, too."""
    plan = planned(ROLLOUT, driven())

    [act] = plan.acts
    assert isinstance(act, Begin)
    assert (act.endpoint, str(act.version), act.spec.bake.seconds) == ("affine", "affine/2", 30)
    shown = {field: after for field, _, after in differences(plan)}
    assert (shown["to"], shown["bake"], shown["baseline"]) == ("affine/2", "30s", "30s")


@pytest.mark.parametrize("state", [STATE.STATE_RUNNING, STATE.STATE_PAUSED, STATE.STATE_SUCCEEDED])
def test_what_was_asked_for_already_is_not_asked_for_again(planned: Planned, state: STATE.State.ValueType):
    """A job that applies every hour must not begin a rollout every hour."""
    assert planned(ROLLOUT, driven(asked(state))).acts == ()


def test_a_version_that_has_all_traffic_needs_no_rollout(planned: Planned):
    """A new cluster starts from the same files as the old one."""
    assert planned(ROLLOUT, driven(traffic=2)).acts == ()


def test_what_was_rolled_back_is_not_tried_again_by_itself(planned: Planned):
    """It did harm; that the file still asks for it is no reason to do it once more."""
    told = refused(planned, ROLLOUT, driven(asked(STATE.STATE_ROLLED_BACK)))
    assert "rollout affine/3 was asked for this and is ROLLED_BACK" in told
    assert "`inferway rollout retry affine` tries it again" in told


def test_another_rollout_is_in_the_way_unless_it_may_be_superseded(planned: Planned):
    """Two people bring two versions; the second must say that he means it."""
    present = driven(asked(STATE.STATE_RUNNING, candidate=1))
    assert "`supersede: true` takes its place" in refused(planned, ROLLOUT, present)

    plan = planned(f"{ROLLOUT}supersede: true\n", present)
    assert differences(plan) == [("to", "affine/1", "affine/2")]
    assert [act.supersede for act in plan.acts if isinstance(act, Begin)] == [True]


def test_a_rollout_may_bring_what_the_same_apply_publishes(planned: Planned):
    """One merge: new content, and how it reaches users. The endpoint must not follow it at once."""
    text = ROLLOUT.replace("to: 2", "to: this") + "---\nkind: Model\nname: affine\npath: affine-model\n"
    plan = planned(text, driven())
    assert [type(act).__name__ for act in plan.acts] == ["Publish", "Begin"]
    assert ("to", "", "affine/new") in differences(plan)

    told = refused(planned, text, driven(automatic=True))
    assert "`inferway endpoint affine --manual` first" in told


def test_arms_say_only_where_rollouts_begin(planned: Planned):
    """The file still has the arms of the first day; what rollouts have moved since stays moved."""
    text = f"kind: Endpoint\nname: affine\narms: [{{version: affine/1}}]\n---\n{ROLLOUT}"
    after = planned(text, driven(asked(STATE.STATE_SUCCEEDED), traffic=2))
    automatic = planned(text, driven(automatic=True))
    new = planned(text, there(version(2), version(1)))

    assert after.acts == ()
    assert [type(act).__name__ for act in automatic.acts] == ["Route", "Begin"]
    assert [type(act).__name__ for act in new.acts] == ["Route", "Begin"]


def test_traffic_that_a_rollout_drives_is_left_to_it(planned: Planned):
    """All is checked before anything is done, so the registry's refusal must not come half-way."""
    present = driven()
    present.endpoints["affine"].rollout.rollout = "endpoints/affine/rollouts/3"
    told = refused(planned, "kind: Endpoint\nname: affine\narms: [{version: affine/2}]\n", present)

    assert "endpoints/affine/rollouts/3 drives its traffic" in told
    assert len(planned("kind: Endpoint\nname: affine\nstreams: finish\n", present).acts) == 1


def test_a_rollout_needs_users(planned: Planned):
    """Without an endpoint nobody could tell good from bad; an automatic one takes no rollouts."""
    assert "there is no endpoint 'affine'" in refused(planned, ROLLOUT, there(version(2), version(1)))
    automatic = f"kind: Endpoint\nname: affine\nautomatic: true\n---\n{ROLLOUT}"
    assert "cannot be automatic" in refused(planned, automatic, driven())
    assert "affine has no version 7" in refused(planned, ROLLOUT.replace("2", "7"), driven())


def test_rules_of_an_endpoint_change_only_where_a_document_has_some(planned: Planned):
    """A document that leaves them out has no opinion on them; an empty list takes them away."""
    present = driven()
    header = rollouts_pb2.HeaderMatch(header="x-tester", exact="1")
    present.endpoints["affine"].match_rules.add(match=header, arm="v1")
    text = "kind: Endpoint\nname: affine\narms: [{version: affine/1}]\n"

    assert planned(text, present).acts == ()
    assert planned(text + 'match: [{header: x-tester, exact: "1", arm: v1}]\n', present).acts == ()
    assert differences(planned(text + "match: []\n", present)) == [("match", "x-tester=1 -> v1", "")]
