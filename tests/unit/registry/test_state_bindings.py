"""Which outputs may carry state to which inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferway.datatypes import Datatype
from inferway.errors import InvalidField
from inferway_registry.resources import Signature, StateBinding, TensorSpec
from inferway_registry.state_bindings import MAX_ROW_BYTES, resolve

F, TEXT = Datatype.FP32, Datatype.BYTES
BINDING = StateBinding("", "state", "next")

Given = tuple[Datatype, tuple[int, ...] | None]


def model(
    state: Given = (F, (-1, 4)),
    following: Given = (F, (-1, 4)),
    x: Given | None = (F, (-1, 2)),
    name: str = "serving_default",
) -> Signature:
    """x, state → y, next."""
    inputs = {"state": state} | ({"x": x} if x else {})
    return Signature(name, specs(inputs), specs({"next": following, "y": (F, (-1, 1))}))


def specs(tensors: Mapping[str, Given]) -> tuple[TensorSpec, ...]:
    """By name."""
    return tuple(TensorSpec(name, datatype, shape) for name, (datatype, shape) in sorted(tensors.items()))


def refused(signature: Signature, *bindings: StateBinding, nan: tuple[str, ...] = ()) -> tuple[str, str]:
    """Field and words of the refusal."""
    with pytest.raises(InvalidField) as caught:
        resolve(bindings, [signature], nan)
    [violation] = caught.value.violations
    return violation.field, violation.description


@pytest.mark.parametrize(
    ("signature", "given", "published"),
    [
        (model(), (), (4,)),
        (model(), (4,), (4,)),
        (model((F, (-1, -1)), (F, (-1, 4))), (), (4,)),
        (model((F, (-1, -1)), (F, (-1, -1))), (7,), (7,)),
        (model((F, (-1,)), (F, (-1,))), (), ()),
        (model((F, (4,)), (F, (4,))), (), (4,)),
        (model((F, (-1, 4)), (F, (-1, 4)), x=(F, (3,))), (2, 4), (2, 4)),
        (model((F, None), (F, None)), (3, 4), (3, 4)),
        (model((F, None), (F, (5,))), (), (5,)),
    ],
    ids=["fixed", "repeated", "by output", "open", "scalar row", "unbatched", "x unbatched", "any rank", "one rank"],
)
def test_what_is_published_has_its_signature_and_the_shape_of_a_row(
    signature: Signature, given: tuple[int, ...], published: tuple[int, ...]
):
    """Gateways make the first state from it and never look into signatures for more."""
    [done] = resolve([replace(BINDING, shape=given)], [signature], ())

    assert done == StateBinding("serving_default", "state", "next", published)


def test_an_empty_signature_is_the_default_or_the_only_one():
    """As in requests."""
    [only] = resolve([BINDING], [model(name="step")], ())
    [default] = resolve([BINDING], [model(name="other"), model()], ())

    assert (only.signature, default.signature) == ("step", "serving_default")


def test_signatures_are_bound_each_on_its_own():
    """The same names in another signature are other tensors."""
    both = [BINDING, replace(BINDING, signature="other")]

    assert [one.signature for one in resolve(both, [model(), model(name="other")], ())] == ["serving_default", "other"]


@pytest.mark.parametrize(
    ("signature", "binding", "field", "said"),
    [
        (model(), replace(BINDING, signature="s"), "signature", "no signature 's'; there is serving_default"),
        (model(), replace(BINDING, input="z"), "input", "no input 'z'; it has state, x"),
        (model(), replace(BINDING, output="x"), "output", "no output 'x'; it has next, y"),
        (model(x=None), BINDING, "input", "callers have nothing to send"),
        (model(following=(Datatype.FP64, (-1, 4))), BINDING, "output", "'next' is FP64 and input 'state' FP32"),
        (model(following=(F, (-1, 5))), BINDING, "output", "'next' is [?, 5], but input 'state' [?, 4]"),
        (model(following=(F, (-1,))), BINDING, "output", "'next' is [?], but input 'state' [?, 4]"),
        (model((F, (-1, -1)), (F, (-1, -1))), BINDING, "shape", "leaves it open: [?]"),
        (model((F, None), (F, None)), BINDING, "shape", "leaves it open: [...]"),
        (model((F, (-1, 4)), (F, (-1, 4)), x=(F, (3,))), BINDING, "shape", "leaves it open: [?, 4]"),
        (model((F, (-1, 0)), (F, (-1, 0))), BINDING, "shape", "no elements"),
        (model(), replace(BINDING, shape=(-1, 4)), "shape", "expected sizes from 1, without the batch"),
        (model(), replace(BINDING, shape=(1, 4)), "shape", "is [1, 4]; a row of 'state' is [4]"),
        (model((F, None), (F, None)), replace(BINDING, shape=(1,) * 17), "shape", "expected sizes from 1"),
        (model((F, (-1, -1)), (F, (-1, -1))), replace(BINDING, shape=(1 << 18 | 1,)), "shape", "more than 1048576"),
        (model(), replace(BINDING, initial=bytes(15)), "initial", "has 15 bytes; a row of FP32 [4] takes 16"),
        (model((TEXT, (-1, 2)), (TEXT, (-1, 2))), replace(BINDING, initial=b"\1\0\0\0a"), "initial", "2 elements"),
        (model((TEXT, (-1,)), (TEXT, (-1,))), replace(BINDING, initial=b"\2\0\0\0a"), "initial", "1 elements"),
    ],
)
def test_a_binding_that_cannot_work_is_refused_by_field(
    signature: Signature, binding: StateBinding, field: str, said: str
):
    """The publisher is the one who can mend it, and sees it before anybody calls."""
    at, words = refused(signature, binding)

    assert at == f"config.state[0].{field}"
    assert said in words


def test_tensors_are_bound_once():
    """Two states in one input, or one output in two, would be a riddle for every reader."""
    wide = Signature(
        "serving_default",
        specs(dict.fromkeys(("a", "b", "x"), (F, (-1, 4)))),
        specs(dict.fromkeys(("p", "q"), (F, (-1, 4)))),
    )
    first = StateBinding("", "a", "p")

    assert len(resolve([first, StateBinding("", "b", "q")], [wide], ())) == 2
    assert refused(wide, first, StateBinding("", "a", "q"))[0] == "config.state[1].input"
    assert refused(wide, first, StateBinding("", "b", "p"))[0] == "config.state[1].output"


def test_the_state_of_a_row_is_counted_over_all_bindings():
    """A gateway keeps all of it for each session."""
    half = (F, (-1, MAX_ROW_BYTES // 8))
    tensors = {"a": half, "b": half, "c": (F, (-1, 1)), "x": (F, (-1, 1))}
    large = Signature(
        "serving_default", specs(tensors), specs({f"next_{name}": kind for name, kind in tensors.items()})
    )
    bindings = [StateBinding("", name, f"next_{name}") for name in "abc"]

    assert len(resolve(bindings[:2], [large], ())) == 2
    assert refused(large, *bindings)[0] == "config.state[2].shape"


def test_initial_values_that_fit_are_kept():
    """Byte for byte."""
    numbers = replace(BINDING, initial=bytes(range(16)))
    words = replace(BINDING, initial=b"\1\0\0\0a\0\0\0\0")

    assert resolve([numbers], [model()], ())[0].initial == numbers.initial
    assert resolve([words], [model((TEXT, (-1, 2)), (TEXT, (-1, 2)))], ())[0].initial == words.initial


def test_state_is_not_searched_for_nan():
    """The rule protects a model from its callers, and no caller sends state."""
    assert refused(model(), BINDING, nan=("state",))[0] == "config.state[0].input"


SIZES = st.lists(st.integers(-1, 3), max_size=3).map(tuple)
TENSORS = st.tuples(st.sampled_from((F, TEXT)), st.none() | SIZES)


@given(
    st.builds(model, TENSORS, TENSORS, TENSORS),
    st.builds(
        StateBinding,
        st.sampled_from(("", "serving_default")),
        st.sampled_from(("state", "x")),
        st.sampled_from(("next", "y")),
        SIZES,
        st.binary(max_size=16),
    ),
)
def test_whatever_is_published_can_be_fed_back(signature: Signature, binding: StateBinding):
    """A gateway trusts it: rows of that shape fit the input and may come from the output, and nothing is left open."""
    try:
        [done] = resolve([binding], [signature], ())
    except InvalidField:
        return
    whole = (2, *done.shape) if signature.batchable else done.shape
    source = next(spec for spec in signature.outputs if spec.name == done.output)
    target = next(spec for spec in signature.inputs if spec.name == done.input)
    assert source.datatype == target.datatype
    for spec in (source, target):
        assert spec.shape is None or (
            len(spec.shape) == len(whole)
            and all(size in (-1, own) for size, own in zip(spec.shape, whole, strict=True))
        )
    assert min(whole, default=1) >= 1
    assert resolve([done], [signature], ()) == (done,)
