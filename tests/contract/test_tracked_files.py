"""What is committed runs anywhere: it knows no machine and no package index."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FORBIDDEN = {
    "a path of one machine": re.compile(r"(?<![\w.-])/(work|root|home/[a-z]\w*)/"),
    "the address of a package index": re.compile(r"pypi\.org|pythonhosted\.org|://[^\s/]+/simple\b"),
    "an option that names an index": re.compile(r"--(extra-)?index[-]url\s*[=\s]\s*\S*://|--find[-]links[=\s]\S*[:/]"),
}


def tracked_files() -> list[Path]:
    listing = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        check=False,
    )
    if listing.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listing.stdout.decode().split("\0") if name]


def test_no_file_names_a_machine_or_an_index():
    """Such a line works for its author and for nobody else."""
    found = []
    for path in tracked_files():
        if path == Path(__file__) or not path.is_file():
            continue
        text = path.read_bytes().decode(errors="replace")
        found += [
            f"{path.relative_to(ROOT)}: {what}: {m.group()}" for what, p in FORBIDDEN.items() for m in p.finditer(text)
        ]

    assert found == []


def test_nothing_built_is_committed():
    """uv.lock names an index; caches and environments are another machine's."""
    names = {str(path.relative_to(ROOT)) for path in tracked_files()}

    assert not {
        name for name in names if re.search(r"(^|/)(uv\.lock|\.venv|build|dist|__pycache__|node_modules)(/|$)", name)
    }
