"""Every command of README.md and docs/engine.md, word for word, in its order, against a real `make up`'s command.

The default ports may be taken on a developer's machine, so the stack runs on others, put into the blocks by text.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.test_up import Up, up
from tests.testbed.ports import free_port_offset

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("README.md", "docs/engine.md")
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
ELSEWHERE = {
    "make up": "tests/e2e/test_up.py runs it: make up is make setup and this command",
    "make test": "this is it",
    "make fleet": "tests/e2e/test_fleet_example.py runs it: make fleet is make setup and this command",
    "docker compose up --build --detach": "tests/compose runs it, by make test-compose",
}


def blocks() -> list[tuple[str, str]]:
    """Language and text of every block, in order."""
    texts = [(ROOT / document).read_text() for document in DOCUMENTS]
    return [(found[1], found[2].strip()) for text in texts for found in BLOCK.finditer(text)]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with up(tmp_path_factory.mktemp("readme"), free_port_offset()) as started:
        started.wait_serving()
        yield started


def moved(text: str, offset: int) -> str:
    """The block with the ports of the stack under test."""
    text = re.sub(r"(python examples/(?:quickstart|stream)\.py)", r"\1 127.0.0.1:8001", text)
    return re.sub(r"127\.0\.0\.1:(80\d\d)", lambda found: f"127.0.0.1:{int(found[1]) + offset}", text)


@pytest.mark.parametrize(("language", "text"), blocks(), ids=lambda value: value.splitlines()[0][:40])
def test_every_block_works(running: Up, tmp_path_factory: pytest.TempPathFactory, language: str, text: str) -> None:
    """What a newcomer copies must work, or the project looks dead."""
    if text in ELSEWHERE:
        return
    script = text.replace(". .venv/bin/activate\n", "")
    target = {
        "INFERWAY_GATEWAY": f"127.0.0.1:{8001 + running.offset}",
        "INFERWAY_REGISTRY": f"127.0.0.1:{8010 + running.offset}",
        "INFERWAY_DATA_DIR": str(running.data_dir),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    command = ["bash", "-euo", "pipefail", "-c"] if language == "sh" else [sys.executable, "-c"]
    done = subprocess.run(
        [*command, moved(script, running.offset)],
        cwd=ROOT,
        env={**os.environ, **target},
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_leads_somewhere(document: str) -> None:
    """Paths move; links must follow."""
    path = ROOT / document
    links = re.findall(r"\]\((?!http)([^)#]+)\)", path.read_text())

    assert [link for link in links if not (path.parent / link).exists()] == []
