"""YAML with its lines: mappings that are read key by key, and what is wrong with them, all of it and where."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import yaml
from yaml.constructor import SafeConstructor

from inferway.errors import InvalidName
from inferway_cli.console import CommandError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Place:
    """A line of a file; lines count from 1."""

    file: str
    line: int

    def __str__(self) -> str:
        """As compilers write it, so that editors jump there."""
        return f"{self.file}:{self.line}"


class Invalid(CommandError):
    """Documents cannot be applied; `problems` says everything that is wrong, a line each."""

    def __init__(self, problems: Iterable[str]) -> None:
        """The message is all of them."""
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))


class Unfit(ValueError):
    """A value is no good; the message says what is expected, in words."""


class Problems:
    """What was found to be wrong so far."""

    def __init__(self) -> None:
        """Nothing yet."""
        self._found: dict[str, None] = {}

    def add(self, place: Place, text: str) -> None:
        """Notes a problem, once."""
        self._found[f"{place}: {' '.join(text.split())}"] = None

    def raise_if_any(self) -> None:
        """Raises Invalid if anything was noted."""
        if self._found:
            raise Invalid(self._found)


class Section:
    """A mapping of a document. Whatever is wrong in it is noted, and reading goes on with what stands in its place."""

    def __init__(self, node: yaml.MappingNode, file: str, problems: Problems) -> None:
        """Reads the keys; one that is there twice is a problem."""
        self.place = _place(node, file)
        self.problems = problems
        self._nodes: dict[str, tuple[Place, yaml.Node]] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                problems.add(_place(key, file), "a key must be a word")
            elif key.value in self._nodes:
                problems.add(_place(key, file), f"{key.value!r} is there twice")
            else:
                self._nodes[key.value] = (_place(key, file), value)

    def __contains__(self, key: str) -> bool:
        """Whether the key is there."""
        return key in self._nodes

    def __iter__(self) -> Iterator[str]:
        """The keys, in the order of the file."""
        return iter(self._nodes)

    def only(self, known: Iterable[str]) -> None:
        """Notes every key that is not known, with the one that was probably meant."""
        for key, (place, _) in self._nodes.items():
            if key not in known:
                self.problems.add(place, f"unknown key {key!r}{suggestion(key, known)}")

    def where(self, key: str) -> Place:
        """The key's line; the section's own if it is not there."""
        return self._nodes[key][0] if key in self._nodes else self.place

    def complain(self, key: str, text: str) -> None:
        """Notes a problem at a key."""
        self.problems.add(self.where(key), text)

    def read(self, key: str, parse: Callable[[object], T], instead: T) -> T:
        """What `parse` makes of the value; `instead` if the key is not there, or its value is no good.

        `parse` raises Unfit or InvalidName.
        """
        if key not in self._nodes:
            return instead
        value: object = None
        try:
            value = SafeConstructor().construct_document(self._nodes[key][1])
            return parse(value)
        except InvalidName as error:
            self.complain(key, error.message)
        except Unfit as error:
            self.complain(key, f"{key} must be {error}, not {reprlib.repr(value)}")
        except (yaml.YAMLError, ValueError) as error:  # such as 2026-02-30, which looks like a date
            self.complain(key, f"{key} cannot be read: {error}")
        return instead

    def check(self, key: str, check: Callable[[str], object]) -> None:
        """Notes what `check` has against the key itself; it raises InvalidName."""
        try:
            check(key)
        except InvalidName as error:
            self.complain(key, error.message)

    def section(self, key: str) -> Section | None:
        """The mapping below the key; None if it is not there, or no mapping."""
        if key not in self._nodes:
            return None
        place, node = self._nodes[key]
        if isinstance(node, yaml.MappingNode):
            return Section(node, place.file, self.problems)
        self.complain(key, f"{key} must hold keys and values")
        return None

    def is_mapping(self, key: str) -> bool:
        """Whether the key holds keys and values."""
        return key in self._nodes and isinstance(self._nodes[key][1], yaml.MappingNode)

    def sections(self, key: str) -> list[Section]:
        """The mappings in the list below the key; empty if it is not there, or no list of mappings."""
        if key not in self._nodes:
            return []
        place, node = self._nodes[key]
        entries = node.value if isinstance(node, yaml.SequenceNode) else [node]
        mappings = [entry for entry in entries if isinstance(entry, yaml.MappingNode)]
        if not isinstance(node, yaml.SequenceNode) or len(mappings) < len(entries):
            self.complain(key, f"{key} must be a list of keys and values")
            return []
        return [Section(entry, place.file, self.problems) for entry in mappings]


def suggestion(word: str, known: Iterable[str]) -> str:
    """`; did you mean ...?`, or what is known."""
    choices = list(known)
    close = difflib.get_close_matches(word, choices, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(choices)}"


def sections_of(text: str, file: str, problems: Problems) -> list[Section]:
    """The documents of a file; empty ones are left out."""
    try:
        nodes = list(yaml.compose_all(text, yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        problems.add(Place(file, mark.line + 1 if mark else 1), f"this is not YAML: {error.problem}")
        return []
    except (yaml.YAMLError, RecursionError) as error:
        problems.add(Place(file, 1), f"this is not YAML: {error}")
        return []
    for node in nodes:
        if not isinstance(node, yaml.MappingNode) and not _is_empty(node):
            problems.add(_place(node, file), "a document must hold keys and values, such as `kind: Model`")
    return [Section(node, file, problems) for node in nodes if isinstance(node, yaml.MappingNode)]


def _is_empty(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.value == ""


def _place(node: yaml.Node, file: str) -> Place:
    return Place(file, node.start_mark.line + 1)
