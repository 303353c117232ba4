"""Resource names are checked at every border by one module."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferway import names
from inferway.errors import InvalidName

HOSTILE = ["", "..", "a..b", "../x", "a/b", "A", ".a", "-a", "a b", "a\x00", "é", "a" * 64, "a" * 10_000, "a\n"]


@pytest.mark.parametrize("segment", HOSTILE)
def test_a_hostile_segment_is_refused_with_a_short_message(segment: str) -> None:
    """Names become paths, metric labels and log lines."""
    with pytest.raises(InvalidName) as refused:
        names.check_segment(segment, "model_name")

    assert refused.value.violations[0].field == "model_name"
    assert len(str(refused.value)) < 300


@given(st.from_regex(r"[a-z0-9][a-z0-9_-]{0,62}", fullmatch=True), st.integers(1, 10**17))
def test_a_version_name_is_read_back_as_it_was_written(model: str, version: int) -> None:
    """Every hop parses what another one wrote."""
    assert names.parse_version(names.version_name(model, version)) == (model, version)


@pytest.mark.parametrize(
    "name", ["models/a", "models/a/versions/0", "models/a/versions/x", "a/b/c/d", "models/../versions/1"]
)
def test_a_malformed_version_name_is_refused(name: str) -> None:
    """Nothing guesses what was meant."""
    with pytest.raises(InvalidName):
        names.parse_version(name)


def test_an_alias_is_never_mistaken_for_a_number() -> None:
    """`model_version` takes either."""
    assert names.check_alias("champion", "alias") == "champion"
    with pytest.raises(InvalidName):
        names.check_alias("1st", "alias")
