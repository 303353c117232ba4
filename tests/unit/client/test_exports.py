"""The public surface is a list, so that it changes on purpose only."""

from __future__ import annotations

import inspect

import inferway_client


def test_exactly_these_names_are_public():
    """Whoever adds or removes one edits this test, and the changelog."""
    assert inferway_client.__all__ == [
        "Client",
        "Criticality",
        "InferwayError",
        "Prediction",
        "PredictionStream",
        "ReconnectPolicy",
        "RetryPolicy",
        "StreamResult",
        "Timing",
        "Version",
    ]


def test_every_public_class_and_method_is_documented():
    """The docstrings are the reference."""
    for name in inferway_client.__all__:
        member = getattr(inferway_client, name)
        if not inspect.isclass(member):
            continue
        assert inspect.getdoc(member), name
        for attribute, method in inspect.getmembers(member, inspect.isfunction):
            assert attribute.startswith("_") or inspect.getdoc(method), f"{name}.{attribute}"
