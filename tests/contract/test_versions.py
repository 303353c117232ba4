"""One version for all that is released together."""

import importlib.metadata
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
DISTRIBUTIONS = {"inferway": ".", "inferway-client": "clients/python", "inferway-protos": "protos"}


def project(folder: str) -> dict[str, Any]:
    parsed = tomllib.loads((ROOT / folder / "pyproject.toml").read_text())
    return dict(parsed["project"])


def test_the_three_distributions_have_one_version():
    """A client of one version with the contract of another fails in ways that nobody tests."""
    versions = {name: project(folder)["version"] for name, folder in DISTRIBUTIONS.items()}

    assert len(set(versions.values())) == 1, versions


@pytest.mark.parametrize("folder", DISTRIBUTIONS.values())
def test_a_distribution_asks_for_exactly_its_own_version_of_the_others(folder: str):
    """Else an upgrade of one leaves the others behind."""
    parts = project(folder)
    extras = parts.get("optional-dependencies", {}).values()
    listed = [line for lines in (parts["dependencies"], *extras) for line in lines]
    ours = [line for line in listed if re.match(r"inferway\b", line)]

    assert all(line.endswith(f"=={parts['version']}") for line in ours), ours


def test_what_is_installed_is_this_version():
    """`inferway version` reads it from the installation; a stale one would lie."""
    for name, folder in DISTRIBUTIONS.items():
        assert importlib.metadata.version(name) == project(folder)["version"]


def test_the_changelog_tells_of_the_version():
    """A release that says nothing of itself cannot be judged before an upgrade."""
    version = re.escape(project(".")["version"])

    assert re.search(rf"^## \[{version}\] - \d{{4}}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
