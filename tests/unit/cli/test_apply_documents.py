"""apply: what is wrong with documents is said before anything is done, all of it, and where."""

from __future__ import annotations

from pathlib import Path

import pytest

from inferway.registry.v1 import resources_pb2
from inferway_cli.apply.documents import ArmDocument, EndpointDocument, ModelDocument
from inferway_cli.apply.nodes import Invalid
from inferway_cli.apply.sources import read_documents
from inferway_cli.console import CommandError

ENDPOINT = "kind: Endpoint\nname: checkout\narms:\n"


def written(tmp_path: Path, text: str) -> str:
    """A file of this text."""
    file = tmp_path / "serving.yaml"
    file.write_text(text)
    return str(file)


def problems(tmp_path: Path, text: str) -> list[str]:
    """What is wrong with the text, without the path of its file."""
    with pytest.raises(Invalid) as caught:
        read_documents(written(tmp_path, text))
    return [problem.removeprefix(f"{tmp_path}/serving.yaml:") for problem in caught.value.problems]


def test_a_document_says_all_that_can_be_set(tmp_path: Path):
    """The form in which people write it, read once in full."""
    text = (
        "kind: Model\nname: digits\npath: build/digits\nruntime: onnx\n"
        "aliases: {champion: this, old: 2, head: latest}\n"
        "version_policy: {versions: [3, 1]}\nserving:\n  this: {max_batch_rows: 32, max_queue_delay_ms: 0.5}\n"
        "  2: {buckets: [1, 8], instances: auto}\n"
    )
    [model] = read_documents(written(tmp_path, text))

    assert isinstance(model, ModelDocument)
    assert (model.name, model.path, model.runtime) == ("digits", tmp_path / "build/digits", "onnx")
    assert model.aliases == {"champion": "this", "old": 2, "head": "latest"}
    assert model.version_policy is not None
    assert list(model.version_policy.specific.versions) == [1, 3]
    assert model.serving["this"].max_queue_delay.ToMicroseconds() == 500
    assert model.serving[2] == resources_pb2.ServingOptions(buckets=[1, 8])


def test_weights_are_per_cent_or_basis_points(tmp_path: Path):
    """Both are what people say; a single arm has everything."""
    split = "  - {version: digits/champion, weight: 99.5%}\n  - {arm: canary, version: checkout/3, weight: 50}\n"
    text = f"{ENDPOINT}{split}---\nkind: Endpoint\nname: digits\narms: [{{version: latest}}]\n"
    two, one = read_documents(written(tmp_path, text))

    assert isinstance(two, EndpointDocument)
    assert isinstance(one, EndpointDocument)
    assert [(arm.arm, arm.model, arm.version, arm.weight_basis_points) for arm in two.arms] == [
        ("", "digits", "champion", 9_950),
        ("canary", "checkout", 3, 50),
    ]
    assert one.arms == (ArmDocument("", "digits", "latest", 10_000, one.arms[0].place),)


def test_everything_that_is_wrong_is_said_at_once(tmp_path: Path):
    """Nobody wants to learn of ten mistakes in ten runs."""
    text = "kind: Model\nname: Digits\npaht: model\naliases:\n  champion: newest\n---\nkind: endpoint\nname: a\n"
    found = problems(tmp_path, text)

    assert [problem.split(":")[0] for problem in found] == ["2", "3", "5", "7"]
    assert "'Digits' is not permitted" in found[0]
    assert found[1] == "3: unknown key 'paht'; did you mean 'path'?"
    assert found[2] == "5: champion must be a version's number, `this` or `latest`, not 'newest'"
    assert found[3] == "7: unknown kind 'endpoint'; did you mean 'Endpoint'?"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("name: a\n", "1: kind is missing; known are Model, Endpoint"),
        ("kind: Model\npath: m\n", "1: name is missing"),
        ("kind: Model\nname: 7\n", "2: name must be text, not 7"),
        ("kind: Model\nname: a\nname: b\n", "3: 'name' is there twice"),
        ("kind: Model\nname: a\naliases: [champion]\n", "3: aliases must hold keys and values"),
        ("kind: Model\nname: a\naliases: {x: this}\n", "1: `this` is the version of `path`, which is missing"),
        ("kind: Model\nname: a\naliases: {latest: 1}\n", "3: no alias may be called 'latest' here"),
        ("kind: Model\nname: a\naliases: {1x: 1}\n", "3: alias: '1x' is not permitted"),
        ("kind: Model\nname: a\nversion_policy: {latest: 0}\n", "3: latest must be a number of versions from 1 to"),
        ("kind: Model\nname: a\nversion_policy: {}\n", "3: version_policy must say one of `latest` and `versions`"),
        ("kind: Model\nname: a\nversion_policy: some\n", "3: version_policy must be all, named, {latest: N}"),
        ("kind: Model\nname: a\nruntime: torch\n", "3: runtime must be tensorflow, onnx or litert, not 'torch'"),
        ("kind: Model\nname: a\nserving: {champion: {}}\n", "3: 'champion' must be a version's number"),
        ("kind: Model\nname: a\nserving: {1: {max_rows: 1}}\n", "did you mean 'max_batch_rows'?"),
        ("kind: Model\nname: a\nserving: {1: {instances: 65}}\n", "3: instances must be a number of copies"),
        ("kind: Model\nname: a\nserving: {1: {instances: true}}\n", "3: instances must be a number of copies"),
        ("kind: Model\nname: a\nserving: {1: {buckets: [8, 1]}}\n", "each above the last, such as 1,8,32, or auto"),
        (f"{ENDPOINT}  - {{version: a/1, weight: 90%}}\n", "3: weights add up to 9000 basis points, 90%; expected"),
        (f"{ENDPOINT}  - {{version: a/1, weight: 0.001%}}\n", "4: weight must be basis points from 0 to 10000"),
        (f"{ENDPOINT}  - {{version: a/1, weight: nan%}}\n", "4: weight must be basis points from 0 to 10000"),
        (f"{ENDPOINT}  - {{version: a/1, weight: 1e999999%}}\n", "4: weight must be basis points from 0 to 10000"),
        (f"{ENDPOINT}  - {{version: a/1, weight: true}}\n", "4: weight must be basis points from 0 to 10000"),
        (f"{ENDPOINT}  - {{version: a/0}}\n", "4: version must be a version such as digits/3"),
        (f"{ENDPOINT}  - {{version: A/1}}\n", "4: version: 'A' is not permitted"),
        (f"{ENDPOINT}  - {{weight: 100%}}\n", "4: version is missing"),
        (f"{ENDPOINT}  - a/1\n", "3: arms must be a list of keys and values"),
        ("kind: Endpoint\nname: a\narms: []\n", "3: 0 arms; expected 1 to 32"),
        ("kind: Endpoint\nname: a\nautomatic: false\n", "3: an endpoint that is not automatic needs arms"),
        ("kind: Endpoint\nname: a\nautomatic: yes\narms: [{version: 1}]\n", "3: an automatic endpoint sets its arms"),
        ("kind: Endpoint\nname: a\nstreams: stay\n", "3: streams must be finish or migrate, not 'stay'"),
        ('kind: Endpoint\nname: a\nsalt: "a\\x00"\n', "3: salt must be text of at most 64 printable characters"),
        ("kind: Model\nname: a\n---\nkind: Model\nname: a\n", "4: a is described at"),
        ("kind: Model\nname: [\n", "3: this is not YAML"),
        ("kind: Model\nname: 2026-02-30\n", "2: name cannot be read"),
        ("kind: Model\nname: a\nserving: {03: {}}\n", "3: '03' must be a version's number"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nkind: Model\nname: *b\n", "4: name must be text, not [["),
        ("kind: Model\nname: !!python/name:os.system a\n", "2: name cannot be read"),
        ("- kind: Model\n", "1: a document must hold keys and values"),
        ("? [a]\n: b\n", "1: a key must be a word"),
        ("[" * 3_000, "1: this is not YAML"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, text: str, problem: str):
    """The line is where one begins to look."""
    found = problems(tmp_path, text)
    assert any(problem in told for told in found), found


def test_a_directory_is_all_its_files_but_those_of_versions(tmp_path: Path):
    """One file for each team; the `inferway.yaml` of a model beside them is no document."""
    for name, model in (("b.yml", "b"), ("a.yaml", "a")):
        (tmp_path / name).write_text(f"kind: Model\nname: {model}\n---\n")
    (tmp_path / "inferway.yaml").write_text("description: of a version\n")
    (tmp_path / "readme.md").write_text("no document")

    assert [document.name for document in read_documents(str(tmp_path))] == ["a", "b"]


@pytest.mark.parametrize("content", [b"", b"---\n", b"\xff", None])
def test_nothing_to_read_is_an_error(tmp_path: Path, content: bytes | None):
    """A typing error in a path must not look like success."""
    file = tmp_path / "serving.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(CommandError):
        read_documents(str(file))


def test_rules_send_calls_with_a_header_to_an_arm(tmp_path: Path):
    """Testers get the new version first."""
    rules = '[{header: x-tester, exact: "1", arm: b}, {header: x-team, prefix: core-, arm: a}]'
    [document] = read_documents(written(tmp_path, f"kind: Endpoint\nname: e\nmatch: {rules}\n"))

    assert isinstance(document, EndpointDocument)
    told = [(rule.match.header, rule.match.exact, rule.match.prefix, rule.arm) for rule in document.rules or ()]
    assert told == [("x-tester", "1", "", "b"), ("x-team", "", "core-", "a")]


@pytest.mark.parametrize(
    ("match", "told"),
    [
        ("[{header: x-tester, arm: b}]", "a match is {header: x-tester"),
        ("[{header: x-tester, exact: a, prefix: b, arm: b}]", "a match is {header: x-tester"),
        ("[{header: X-Tester, exact: a, arm: b}]", "header must be in lower case"),
        ("[{header: x tester, exact: a, arm: b}]", "header must be in lower case, of a-z"),
        ("[{header: x-tester, exact: a}]", "arm is missing"),
        ("[{header: x-tester, exact: a, arm: B}]", "'B' is not permitted"),
        ("[{header: x-tester, exact: a, arm: b}]\nautomatic: true", "an automatic endpoint has one arm"),
    ],
)
def test_rules_that_are_no_good_are_told(tmp_path: Path, match: str, told: str):
    """Before anything is done."""
    found = problems(tmp_path, f"kind: Endpoint\nname: e\nmatch: {match}\n")
    assert any(told in problem for problem in found)
