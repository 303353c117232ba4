"""What is printed: names that others chose must not steer the terminal of who reads them."""

from __future__ import annotations

import pytest
from rich.text import Text

from inferway.registry.v1 import resources_pb2
from inferway_cli.console import escaped, note, out, print_table
from tests.unit.cli.conftest import Inferway
from tests.unit.cli.fake_registry import FakeRegistry

EVIL = "x\x1b[2J\x9b1m"
TAMED = "x\\x1b[2J\\x9b1m"


def test_what_cannot_be_printed_is_spelt_out():
    """A reader sees that something is odd, and nothing happens to the screen."""
    assert escaped(f"{EVIL}\u202eü ✓\n") == f"{TAMED}\\u202eü ✓\n"


def test_every_way_of_printing_escapes(capsys: pytest.CaptureFixture[str]):
    """Tables, lines and notes all show names of others."""
    out.print(EVIL, markup=False)
    out.print(Text(EVIL, style="bold"))
    print_table(EVIL, ("name",), [{"name": EVIL}], "")
    note(EVIL)

    printed = capsys.readouterr()
    assert (printed.out + printed.err).split() == [TAMED, TAMED, TAMED, "name", TAMED, TAMED]


async def test_a_model_of_an_older_registry_cannot_paint_on_the_screen(inferway: Inferway, registry: FakeRegistry):
    """Versions stay that were published before such names were refused."""
    version = resources_pb2.ModelVersion(name="models/digits/versions/1", version=1)
    version.config.description = EVIL
    version.signatures.add(name=EVIL).inputs.add(name=EVIL, datatype=1)
    registry.versions[version.name] = version

    shown = await inferway("model", "digits")

    assert shown.code == 0, shown.stderr
    assert "\x1b" not in shown.stdout
    assert f"  {TAMED}({TAMED}: " in shown.stdout
