"""Whether callers of one version may be given another: it takes what they send, and answers what they expect. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from inferway_registry.resources import ModelVersion, Signature, TensorSpec
from inferway_registry.state_bindings import DEFAULT_SIGNATURE
from inferway_registry.wording import shown

Shape = tuple[int, ...] | None


def incompatibility(stable: ModelVersion, candidate: ModelVersion) -> str:
    """Why callers of `stable` cannot be given `candidate`, in plain words; empty if they can.

    What counts is what callers see: state that goes round through the gateway is nobody else's business.
    """
    offered = {signature.name: signature for signature in _public(candidate)}
    for signature in _public(stable):
        if signature.name not in offered:
            return f"it has no signature {shown(signature.name)!r}"
        problem = next(_problems(signature, offered[signature.name]), "")
        if problem:
            return f"its signature {shown(signature.name)!r} {problem}"
    begun = (_stateful(candidate) - _stateful(stable)) & {signature.name for signature in stable.signatures}
    if begun:
        return f"its signature {shown(min(begun))!r} keeps state, and callers begin no sessions"
    if _unnamed(stable) and _unnamed(stable) != _unnamed(candidate):
        return f"callers who name no signature have {shown(_unnamed(stable))!r}, and would not get it"
    return ""


def _stateful(version: ModelVersion) -> set[str]:
    return {binding.signature for binding in version.config.state}


def _unnamed(version: ModelVersion) -> str:
    """The signature of callers who name none; empty if they have to."""
    names = [signature.name for signature in version.signatures]
    if DEFAULT_SIGNATURE in names:
        return DEFAULT_SIGNATURE
    return names[0] if len(names) == 1 else ""


def _public(version: ModelVersion) -> Iterator[Signature]:
    for signature in version.signatures:
        state = [binding for binding in version.config.state if binding.signature == signature.name]
        hidden_inputs, hidden_outputs = {one.input for one in state}, {one.output for one in state}
        yield replace(
            signature,
            inputs=tuple(spec for spec in signature.inputs if spec.name not in hidden_inputs),
            outputs=tuple(spec for spec in signature.outputs if spec.name not in hidden_outputs),
        )


def _problems(stable: Signature, candidate: Signature) -> Iterator[str]:
    yield from _missing("input", stable.inputs, candidate.inputs)
    yield from _missing("output", stable.outputs, candidate.outputs)
    known = {spec.name for spec in stable.inputs}
    for spec in candidate.inputs:
        if spec.name not in known:
            yield f"needs an input {shown(spec.name)!r}, which callers do not send"


def _missing(side: str, expected: Sequence[TensorSpec], offered: Sequence[TensorSpec]) -> Iterator[str]:
    by_name = {spec.name: spec for spec in offered}
    for spec in expected:
        found = by_name.get(spec.name)
        tensor = f"{side} {shown(spec.name)!r}"
        if found is None:
            yield f"has no {tensor}"
        elif found.datatype is not spec.datatype:
            yield f"has {found.datatype.name} for {tensor}, where callers know {spec.datatype.name}"
        elif not (_takes(found.shape, spec.shape) if side == "input" else _may_be(found.shape, spec.shape)):
            yield f"has {tensor} in shape {_words(found.shape)}, where callers know {_words(spec.shape)}"
        elif found.forbid_nan and not spec.forbid_nan:
            yield f"refuses NaN in {tensor}, which callers may send"


def _takes(offered: Shape, sent: Shape) -> bool:
    """Whether every tensor of one shape is taken by the other."""
    if offered is None or sent is None:
        return offered is None
    return len(offered) == len(sent) and all(one in (-1, other) for one, other in zip(offered, sent, strict=True))


def _may_be(answered: Shape, expected: Shape) -> bool:
    """Whether some tensor has both shapes: what is left open is seen only when it answers."""
    if answered is None or expected is None:
        return True
    pairs = zip(answered, expected, strict=False)
    return len(answered) == len(expected) and all(one == other or -1 in (one, other) for one, other in pairs)


def _words(shape: Shape) -> str:
    return "of any rank" if shape is None else str(list(shape))
