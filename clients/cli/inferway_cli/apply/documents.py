"""What documents say: models, endpoints and rollouts as they shall be. Checked as far as that needs nobody else.

kind: Model
name: digits
path: build/digits               # published unless a version has this content and config; relative to the file
runtime: tensorflow              # where the path leaves a choice
aliases: {champion: this, old: 2}  # a number, `this` (the version of `path`) or `latest`
version_policy: {latest: 2}      # or {versions: [1, 3]}, all, named
serving:                         # all bounds of a version; what is left out is the worker's own choice
  this: {max_batch_rows: 32, max_queue_delay_ms: 2, buckets: [1, 8, 32], instances: 2}
---
kind: Endpoint
name: checkout
arms:                            # or automatic: true, for an endpoint of a model's name
  - {version: digits/champion, weight: 90%}
  - {arm: canary, version: digits/latest, weight: 1000}
salt: checkout-2026
streams: finish                  # or migrate
match:                           # calls with a header get an arm, whatever the weights; the first that fits decides
  - {header: x-tester, exact: "1", arm: canary}      # or prefix

Everything but kind and name may be left out, and is left alone then. `rollout_documents` has the third kind.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from inferway import names
from inferway.registry.v1 import resources_pb2
from inferway_cli.apply import values
from inferway_cli.apply.nodes import Place, Problems, Section, Unfit, suggestion
from inferway_cli.apply.rollout_documents import RolloutDocument, read_match, read_rollout
from inferway_cli.apply.values import FULL_WEIGHT, LATEST, THIS, Label
from inferway_cli.local_model import KINDS as RUNTIMES
from inferway_cli.tuning import AUTO, BOUNDS, Bound, Options

MAX_ARMS = 32
MAX_KEPT = 1_000
MAX_SALT_CHARACTERS = 64
_NUMBER = re.compile(r"[1-9][0-9]{0,17}")


@dataclass(frozen=True, slots=True)
class ModelDocument:
    """A model as it shall be; what is None or empty is left alone."""

    name: str
    place: Place
    path: Path | None = None
    runtime: str = ""
    aliases: Mapping[str, Label] = field(default_factory=dict)
    version_policy: resources_pb2.VersionPolicy | None = None
    serving: Mapping[Label, Options] = field(default_factory=dict)
    places: Mapping[str, Place] = field(default_factory=dict)
    """Of the keys that name versions or paths: `path`, `version_policy`, `aliases.champion`, `serving.this`."""


@dataclass(frozen=True, slots=True)
class ArmDocument:
    """A share of an endpoint's traffic."""

    arm: str
    """Empty stands for `v` and the version's number."""
    model: str
    version: Label
    weight_basis_points: int
    place: Place


@dataclass(frozen=True, slots=True)
class EndpointDocument:
    """An endpoint as it shall be; what is empty is left alone."""

    name: str
    place: Place
    arms: tuple[ArmDocument, ...] = ()
    automatic: bool = False
    salt: str = ""
    streams: resources_pb2.StreamPolicy.ValueType = resources_pb2.STREAM_POLICY_UNSPECIFIED
    rules: tuple[resources_pb2.MatchRule, ...] | None = None
    """None: as they are."""


Document: TypeAlias = ModelDocument | EndpointDocument | RolloutDocument


def read_document(section: Section, folder: Path) -> Document | None:
    """The document; paths in it are relative to `folder`. None if nobody can tell what it is.

    Whatever is wrong is noted in the section's problems.
    """
    kind = section.read("kind", values.text, "")
    if "kind" not in section:
        section.complain("kind", f"kind is missing; known are {', '.join(_KINDS)}")
    elif kind not in _KINDS and kind:
        section.complain("kind", f"unknown kind {kind!r}{suggestion(kind, _KINDS)}")
    if kind not in _KINDS:
        return None
    key, read = _KINDS[kind]
    if key not in section:
        section.complain(key, f"{key} is missing")
    name = section.read(key, lambda value: names.check_segment(values.text(value), key), "")
    return read(section, name, folder)


def check_distinct(documents: list[Document], problems: Problems) -> None:
    """Notes every document that describes what one before it describes."""
    seen: dict[tuple[type, str], Place] = {}
    for document in documents:
        first = seen.setdefault((type(document), document.name), document.place)
        if document.name and first is not document.place:
            problems.add(document.place, f"{document.name} is described at {first} already")


def _model(section: Section, name: str, folder: Path) -> ModelDocument:
    section.only(("kind", "name", "path", "runtime", "aliases", "version_policy", "serving"))
    path = section.read("path", _path, None)
    aliases, serving = section.section("aliases"), section.section("serving")
    places = {key: section.where(key) for key in ("path", "version_policy")}
    places |= {f"aliases.{alias}": aliases.where(alias) for alias in aliases or () if aliases}
    places |= {f"serving.{label}": serving.where(label) for label in serving or () if serving}
    document = ModelDocument(
        name=name,
        place=section.place,
        path=None if path is None else folder / path,
        runtime=section.read("runtime", values.one_of(*RUNTIMES), ""),
        aliases=_aliases(aliases) if aliases else {},
        version_policy=_policy(section),
        serving=_serving(serving) if serving else {},
        places=places,
    )
    if "path" not in section and THIS in (*document.aliases.values(), *document.serving):
        section.complain("path", "`this` is the version of `path`, which is missing")
    return document


def _aliases(section: Section) -> dict[str, Label]:
    for alias in section:
        if alias in (THIS, LATEST):
            section.complain(alias, f"no alias may be called {alias!r} here: it says which version is meant")
        section.check(alias, lambda alias: names.check_alias(alias, "alias"))
    nothing: Label = 0
    return {alias: section.read(alias, values.label, nothing) for alias in section}


def _policy(section: Section) -> resources_pb2.VersionPolicy | None:
    if not section.is_mapping("version_policy"):
        return section.read("version_policy", _policy_word, None)
    chosen = section.section("version_policy")
    assert chosen is not None
    chosen.only(("latest", "versions"))
    if len(list(chosen)) != 1:
        section.complain("version_policy", "version_policy must say one of `latest` and `versions`")
    if "latest" in chosen:
        return resources_pb2.VersionPolicy(latest=chosen.read("latest", _kept, 0))
    nothing: list[int] = []
    numbers = chosen.read("versions", _numbers, nothing)
    return resources_pb2.VersionPolicy(specific=resources_pb2.SpecificVersions(versions=numbers))


def _serving(section: Section) -> dict[Label, Options]:
    found: dict[Label, Options] = {}
    for label in section:
        bounds = section.section(label)
        is_number = _NUMBER.fullmatch(label) is not None
        if not is_number and label not in (THIS, LATEST):
            section.complain(label, f"{label!r} must be a version's number, `this` or `latest`")
        elif bounds is not None:
            found[int(label) if is_number else label] = _options(bounds)
    return found


def _options(section: Section) -> Options:
    section.only(_BOUNDS)
    options = Options()
    for key, bound in _BOUNDS.items():
        options.MergeFrom(section.read(key, _bounded(bound), Options()))
    return options


def _bounded(bound: Bound) -> Callable[[object], Options]:
    def parse(value: object) -> Options:
        if value == AUTO:
            return Options()
        if isinstance(value, bool) or not isinstance(value, int | float | list):
            raise Unfit(f"{bound.permitted}, or {AUTO}")
        try:
            typed = ",".join(map(str, value)) if isinstance(value, list) else str(value)
            return Options(**{bound.field: bound.parse(typed)})
        except ValueError:
            raise Unfit(f"{bound.permitted}, or {AUTO}") from None

    return parse


def _endpoint(section: Section, name: str, folder: Path) -> EndpointDocument:
    del folder  # an endpoint names no files
    section.only(("kind", "name", "arms", "automatic", "salt", "streams", "match"))
    automatic = section.read("automatic", values.truth, False)
    entries = section.sections("arms")
    arms = [_arm(entry, name, alone=len(entries) == 1) for entry in entries]
    if automatic and "arms" in section:
        section.complain("automatic", "an automatic endpoint sets its arms itself; leave one of the two out")
    if automatic and "match" in section:
        section.complain("match", "an automatic endpoint has one arm, whose name changes; leave one of the two out")
    if "automatic" in section and not automatic and "arms" not in section:
        section.complain("automatic", "an endpoint that is not automatic needs arms")
    if "arms" in section:
        _check_arms(section, arms)
    streams = section.read("streams", values.one_of("finish", "migrate"), "unspecified")
    return EndpointDocument(
        name=name,
        place=section.place,
        arms=tuple(arm for arm in arms if arm is not None),
        automatic=automatic,
        salt=section.read("salt", _salt, ""),
        streams=resources_pb2.StreamPolicy.Value(f"STREAM_POLICY_{streams.upper()}"),
        rules=_rules(section) if "match" in section else None,
    )


def _rules(section: Section) -> tuple[resources_pb2.MatchRule, ...]:
    found = []
    for entry in section.sections("match"):
        match = read_match(entry, "arm")
        arm = entry.read("arm", lambda value: names.check_segment(values.text(value), "arm"), "")
        if "arm" not in entry:
            entry.complain("arm", "arm is missing: the one that such calls get")
        found.append(resources_pb2.MatchRule(match=match, arm=arm))
    return tuple(found)


def _arm(section: Section, endpoint: str, *, alone: bool) -> ArmDocument | None:
    """None if anything of it is no good, which is noted then."""
    section.only(("arm", "version", "weight"))
    for key in ("version", "weight"):
        if key not in section and not (alone and key == "weight"):
            section.complain(key, f"{key} is missing; an arm is {{version: digits/champion, weight: 90%}}")
    named = section.read("version", values.version, None)
    arm = section.read("arm", lambda value: names.check_segment(values.text(value), "arm"), "")
    weight = section.read("weight", values.weight, FULL_WEIGHT if alone and "weight" not in section else None)
    if named is None or weight is None:
        return None
    model, version = named
    return ArmDocument(arm, model or endpoint, version, weight, section.place)


def _check_arms(section: Section, arms: list[ArmDocument | None]) -> None:
    good = [arm for arm in arms if arm is not None]
    if len(good) < len(arms):
        return
    if not 0 < len(good) <= MAX_ARMS:
        section.complain("arms", f"{len(good)} arms; expected 1 to {MAX_ARMS}")
        return
    total = sum(arm.weight_basis_points for arm in good)
    if total != FULL_WEIGHT:
        section.complain(
            "arms", f"weights add up to {total} basis points, {total / 100:g}%; expected {FULL_WEIGHT}, 100%"
        )


def _salt(value: object) -> str:
    if len(values.text(value)) > MAX_SALT_CHARACTERS or not values.text(value).isprintable():
        raise Unfit(f"text of at most {MAX_SALT_CHARACTERS} printable characters")
    return values.text(value)


def _path(value: object) -> str | None:
    return values.text(value)


def _policy_word(value: object) -> resources_pb2.VersionPolicy | None:
    if value == "all":
        return resources_pb2.VersionPolicy(all=resources_pb2.AllVersions())
    if value == "named":
        return resources_pb2.VersionPolicy()
    raise Unfit("all, named, {latest: N} or {versions: [N, N]}")


def _kept(value: object) -> int:
    wanted = f"a number of versions from 1 to {MAX_KEPT}"
    if values.number(value, wanted) > MAX_KEPT:
        raise Unfit(wanted)
    return values.number(value, wanted)


def _numbers(value: object) -> list[int]:
    wanted = f"a list of 1 to {MAX_KEPT} version numbers, such as [1, 3]"
    if not isinstance(value, list) or not 0 < len(value) <= MAX_KEPT:
        raise Unfit(wanted)
    return sorted({values.number(number, wanted) for number in value})


def _rollout(section: Section, endpoint: str, folder: Path) -> RolloutDocument:
    del folder  # a rollout names no files
    if "to" not in section:
        section.complain("to", "to is missing: the version to bring, such as digits/2")
    return read_rollout(section, endpoint)


_KINDS: dict[str, tuple[str, Callable[[Section, str, Path], Document]]] = {
    "Model": ("name", _model),
    "Endpoint": ("name", _endpoint),
    "Rollout": ("endpoint", _rollout),
}
"""What each kind is named by, and how it is read."""
_BOUNDS = {"max_queue_delay_ms" if bound.field == "max_queue_delay" else bound.field: bound for bound in BOUNDS}
