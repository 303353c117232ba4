"""Every command of docs/tutorial-rollout.md, in its order, against a real `make up`'s command, in less time."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.test_readme import moved
from tests.e2e.test_up import Up, up
from tests.testbed.ports import free_port_offset

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "tutorial-rollout.md"
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
SPECS = ROOT / "examples" / "digits"
SHORTER = {
    r"(hold|baseline): \d+s": r"\1: 2s",
    r"bake: 15s": "bake: 2s",
    r"min_pairs: \d+": "min_pairs: 150",
    r"min_units: \d+": "min_units: 20, output_margin: 0",
}
"""Outputs count from ten seconds after a candidate's first request, so they are not waited for."""
STORY = {
    "--manual": "digits version 3 is published",
    "start digits --file examples/digits/canary.yaml": "digits/2 has had all users",
    "--to 3 --file examples/digits/canary.yaml": "The candidate does harm. answers that break the schema",
    "shadow.yaml": "Verdict: differs.",
    "--until baking": "digits: v1 digits/1 100%, v2 digits/2 0%",
    "abort": "exit code 3\ndigits: v2 digits/2 100%",
    "canary.yaml --dry-run": "nothing to do: 1 resource as described",
}
"""What the terminal must say, by a piece of the block."""


def blocks() -> list[str]:
    """The text of every block, in order."""
    return [found[1].strip() for found in BLOCK.finditer(DOCUMENT.read_text())]


class Reader:
    """Somebody who follows the tutorial, with a stack in one terminal and traffic in another."""

    def __init__(self, stack: Up, directory: Path) -> None:
        self._stack, self._directory = stack, directory
        self._serving = False
        self.traffic: subprocess.Popen[str] | None = None
        self._environment = {
            **os.environ,
            "INFERWAY_GATEWAY": f"127.0.0.1:{8001 + stack.offset}",
            "INFERWAY_REGISTRY": f"127.0.0.1:{8010 + stack.offset}",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }

    def run(self, block: str) -> subprocess.CompletedProcess[str]:
        """Types a block; the stack must serve by then, unless the block does not need it."""
        if not self._serving and "inferway " in block:
            self._stack.wait_serving()
            self._serving = True
        command = ["bash", "-euo", "pipefail", "-c", self._shortened(block)]
        if "--seconds 0" in block:
            self.traffic = subprocess.Popen(
                command, cwd=ROOT, env=self._environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                start_new_session=True,
            )  # fmt: skip
            return subprocess.CompletedProcess(command, 0, "", "")
        return subprocess.run(
            command, cwd=ROOT, env=self._environment, capture_output=True, text=True, check=False, timeout=110
        )

    def stop(self) -> str:
        """Ctrl-C in the traffic's terminal; what it has to say."""
        assert self.traffic is not None
        os.killpg(self.traffic.pid, signal.SIGINT)
        return self.traffic.communicate(timeout=30)[0]

    def close(self) -> None:
        """Leaves no traffic behind."""
        if self.traffic is not None and self.traffic.poll() is None:
            os.killpg(self.traffic.pid, signal.SIGKILL)
            self.traffic.communicate()

    def _shortened(self, block: str) -> str:
        for spec in SPECS.glob("*.yaml"):
            text = spec.read_text()
            for long, short in SHORTER.items():
                text = re.sub(long, short, text)
            (self._directory / spec.name).write_text(text)
        text = moved(block, self._stack.offset).replace(". .venv/bin/activate\n", "")
        return text.replace("examples/digits/", f"{self._directory}/")


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    directory = tmp_path_factory.mktemp("tutorial")
    with up(directory / "data", free_port_offset()) as stack, ExitStack() as ending:
        reader = Reader(stack, directory)
        ending.callback(reader.close)
        yield reader


@pytest.mark.parametrize("block", blocks(), ids=lambda block: block.splitlines()[-1][:60])
def test_every_block_does_what_the_tutorial_says(reader: Reader, block: str) -> None:
    """A newcomer copies them one after another, and believes what stands below."""
    if block.startswith("make up"):
        return  # the fixture runs it: make up is make setup and this command
    done = reader.run(block)

    assert done.returncode == 0, done.stdout + done.stderr
    told = [words for piece, words in STORY.items() if piece in block]
    assert all(words in done.stdout for words in told), done.stdout + done.stderr


def test_the_story_is_told_of_blocks_that_are_there() -> None:
    """A command that was rewritten must take its story along."""
    assert all(any(piece in block for block in blocks()) for piece in STORY)


def test_nobody_got_an_error_all_that_time(reader: Reader) -> None:
    """Versions came, went and were switched, and calls were answered."""
    summary = reader.stop()
    assert re.search(r"^errors +none", summary, re.MULTILINE), summary


def test_every_link_leads_somewhere() -> None:
    """Paths move; links must follow."""
    links = re.findall(r"\]\((?!http)([^)#]+)", DOCUMENT.read_text())
    assert [link for link in links if not (DOCUMENT.parent / link).exists()] == []


def test_the_tutorial_shows_the_spec_that_it_uses() -> None:
    """Comments aside, to the letter."""
    [shown] = re.findall(r"^```yaml\n(.*?)^```", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    file = (SPECS / "canary.yaml").read_text()
    assert shown == "".join(
        re.sub(r" +#.*", "", line) for line in file.splitlines(keepends=True) if not line.startswith("#")
    )
