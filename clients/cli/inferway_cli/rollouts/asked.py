"""What `inferway rollout start` is asked for: a document, with the options of the command put over it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from google.protobuf.duration_pb2 import Duration

from inferway import names
from inferway.errors import InvalidName
from inferway.registry.v1.resources_pb2 import ModelVersion
from inferway_cli.apply import values
from inferway_cli.apply.nodes import Place, Unfit
from inferway_cli.apply.present import busiest_model
from inferway_cli.apply.rollout_documents import RolloutDocument, duration, steps_of
from inferway_cli.apply.sources import read_rollout_document
from inferway_cli.console import CommandError
from inferway_cli.registry import Registry
from inferway_cli.rollouts.spec import STRATEGIES, Spec, strategy_name
from inferway_cli.versions import number_of


@dataclass(frozen=True, slots=True)
class Options:
    """As typed; what is empty or None is not asked for."""

    to: str | None = None
    strategy: str | None = None
    steps: str | None = None
    baseline: str | None = None
    bake: str | None = None
    min_units: int | None = None
    description: str | None = None


def document_of(endpoint: str, file: str | None, options: Options) -> RolloutDocument:
    """The file's document, or an empty one, with the options in it; raises Invalid and CommandError."""
    document = RolloutDocument(endpoint, Place("options", 1), Spec())
    if file is not None:
        document = read_rollout_document(file)
        if document.name not in {"", endpoint}:
            raise CommandError(f"{file} is for endpoint {document.name}, not {endpoint}")
    if options.to is not None:
        model, to = _parsed("--to", values.version, options.to)
        document = replace(document, model=model, to=to)
    if document.to is None:
        raise CommandError("--to must say which version to bring; `inferway model NAME` lists them")
    return replace(document, name=endpoint, spec=_changed(document.spec, options))


async def complete(registry: Registry, document: RolloutDocument) -> Spec:
    """The spec with its candidate found; raises AliasNotFound, CommandError, and what rpcs raise."""
    model = document.model or busiest_model(await registry.endpoint(document.name)) or document.name
    spec = Spec()
    spec.CopyFrom(document.spec)
    spec.candidate_version = names.version_name(model, await _number(registry, model, document.to))
    return spec


async def _number(registry: Registry, model: str, to: values.Label | None) -> int:
    if to == values.THIS:
        raise CommandError("`this` is a version that `inferway apply` publishes; say its number or alias")
    if to == values.LATEST:
        served = [one.version for one in await registry.versions(model) if one.state != ModelVersion.STATE_UNLOADED]
        if not served:
            raise CommandError(f"{model} has no version that could be served; `inferway model {model}` lists them")
        return max(served)
    return await number_of(registry, model, str(to))


def _changed(before: Spec, options: Options) -> Spec:
    spec = Spec()
    spec.CopyFrom(before)
    wanted = options.strategy or strategy_name(spec) or "canary"
    if wanted != strategy_name(spec):
        getattr(spec, STRATEGIES[wanted]).SetInParent()
    if options.steps is not None:
        if wanted != "canary":
            raise CommandError(f"--steps are those of a canary, and {wanted} has none")
        del spec.canary.steps[:]
        spec.canary.steps.extend(_parsed("--steps", _steps, options.steps))
    for field in ("baseline", "bake"):
        if (typed := getattr(options, field)) is not None:
            getattr(spec, field).CopyFrom(_parsed(f"--{field}", duration, _number_or_text(typed)))
    if options.min_units is not None:
        spec.judging.min_units = options.min_units
    spec.description = options.description or spec.description
    return spec


def _steps(typed: object) -> Any:
    """`5%:30s,25%:30s`; a step without a time has the usual one."""
    pairs = [part.strip().partition(":") for part in str(typed).split(",")]
    return steps_of((_weight(weight), _hold(hold)) for weight, _, hold in pairs)


def _weight(typed: str) -> int:
    return values.weight(_number_or_text(typed))


def _hold(typed: str) -> Duration | None:
    return duration(_number_or_text(typed)) if typed else None


def _number_or_text(typed: str) -> object:
    """As YAML would have read it."""
    return int(typed) if typed.isdecimal() else typed


def _parsed(option: str, parse: Any, typed: object) -> Any:
    try:
        return parse(typed)
    except Unfit as unfit:
        raise CommandError(f"{option} must be {unfit}, not {typed!r}") from None
    except InvalidName as error:
        raise CommandError(f"{option}: {error.message}") from None
