"""A plan for people and for programs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from rich.text import Text

from inferway.errors import InferwayError
from inferway_cli.apply.acts import Act, Difference, Plan
from inferway_cli.console import out
from inferway_cli.serving_words import counted

FIELD_COLUMNS = 24
_MARKS = {"+": "green", "-": "red", "~": "yellow"}


def print_plan(plan: Plan) -> None:
    """What would be created, changed and removed of each resource, and what is left alone."""
    for resource in plan.resources:
        differences = _of(plan, resource)
        out.print(Text(f"{resource}: {_SENTENCES[_action(plan, resource)]}", style="bold" if differences else "dim"))
        for difference in differences:
            out.print(_line(difference))
    out.print(Text(_summary(plan)))


def plan_dict(plan: Plan, done: Iterable[Act], error: Exception | None) -> dict[str, Any]:
    """The same, what was done of it, and what ended it."""
    finished = list(done)
    return {
        "resources": [
            {
                "resource": resource,
                "action": _action(plan, resource),
                "differences": [
                    {"field": difference.field, "before": difference.before, "after": difference.after}
                    for difference in _of(plan, resource)
                ],
            }
            for resource in plan.resources
        ],
        "acts": [
            {"resource": act.resource, "fields": [d.field for d in act.differences], "done": act in finished}
            for act in plan.acts
        ],
        "error": None if error is None else {"reason": _reason(error), "message": str(error)},
    }


def title(act: Act) -> str:
    """An act in a few words: `model digits: alias champion`."""
    return f"{act.resource}: {fields(act)}"


def fields(act: Act) -> str:
    """What an act changes."""
    return ", ".join(difference.field for difference in act.differences)


def _of(plan: Plan, resource: str) -> list[Difference]:
    return [difference for act in plan.acts if act.resource == resource for difference in act.differences]


def _action(plan: Plan, resource: str) -> str:
    if resource in plan.created:
        return "create"
    return "change" if _of(plan, resource) else "none"


_SENTENCES = {"create": "to be created", "change": "to be changed", "none": "as described"}


def _line(difference: Difference) -> Text:
    mark = "~" if difference.before and difference.after else "+" if difference.after else "-"
    values = " -> ".join(value for value in (difference.before, difference.after) if value)
    return Text(f"  {mark} {difference.field:<{FIELD_COLUMNS}} {values}", style=_MARKS[mark])


def _summary(plan: Plan) -> str:
    actions = [_action(plan, resource) for resource in plan.resources]
    if not plan.acts:
        return f"nothing to do: {counted(len(actions), 'resource')} as described"
    return ", ".join(_counts(actions))


def _counts(actions: list[str]) -> Iterator[str]:
    for action, sentence in _SENTENCES.items():
        if actions.count(action):
            yield f"{actions.count(action)} {sentence}"


def _reason(error: Exception) -> str:
    return error.reason if isinstance(error, InferwayError) else ""
