"""What single values of documents may be: parsers for `Section.read`, which raise Unfit with what is expected."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import TypeAlias

from inferway import names
from inferway_cli.apply.nodes import Unfit

FULL_WEIGHT = 10_000
THIS = "this"
LATEST = "latest"
Label: TypeAlias = int | str
"""A version as a document names it: its number, an alias, `this` or `latest`."""


def text(value: object) -> str:
    """Any text but none."""
    if not isinstance(value, str) or not value:
        raise Unfit("text")
    return value


def truth(value: object) -> bool:
    """Yes or no."""
    if not isinstance(value, bool):
        raise Unfit("true or false")
    return value


def one_of(*choices: str) -> Callable[[object], str]:
    """A parser for one of some words."""

    def parse(value: object) -> str:
        if value not in choices:
            raise Unfit(f"{', '.join(choices[:-1])} or {choices[-1]}")
        return str(value)

    return parse


def number(value: object, wanted: str) -> int:
    """A number of something, from 1."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**63:
        raise Unfit(wanted)
    return value


def label(value: object) -> Label:
    """A version of a model that is named elsewhere."""
    if isinstance(value, str) and value in (THIS, LATEST):
        return value
    return number(value, "a version's number, `this` or `latest`")


def version(value: object) -> tuple[str, Label]:
    """A version of a model: the model, empty where only the version is said, and the version."""
    wanted = "a version such as digits/3, digits/champion or digits/latest"
    if isinstance(value, int):
        return "", number(value, wanted)
    model, slash, named = text(value).rpartition("/")
    if slash:
        names.check_segment(model, "version")
    if named.isdecimal():
        return model, number(int(named), wanted)
    return model, names.check_alias(named, "version")


def weight(value: object) -> int:
    """A share of the traffic, in basis points."""
    wanted = f"basis points from 0 to {FULL_WEIGHT} or per cent such as 12.5%, in steps of 0.01%"
    try:
        points = _points(value)
        if 0 <= points <= FULL_WEIGHT and points == int(points):
            return int(points)
    except ArithmeticError:
        pass
    raise Unfit(wanted)


def _points(value: object) -> Decimal:
    """Raises ArithmeticError for what is no number."""
    if isinstance(value, str) and value.endswith("%"):
        return Decimal(value.removesuffix("%").strip()) * 100
    if isinstance(value, int) and not isinstance(value, bool):
        return Decimal(value)
    raise InvalidOperation
