"""Fuzzes targets with atheris: `python -m tests.fuzz.run [--seconds N] [TARGET ...]`; all of them if none is named.

Each begins with the committed corpus and what earlier runs left in build/fuzz. An input that breaks its target is kept
there, and the exit status is 1: mend the code, then copy that file into tests/fuzz/corpus. `--keep` adds some of what
was found to the committed corpus.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import subprocess
import sys
from pathlib import Path

from tests.fuzz.targets import CORPUS, TARGETS

FOUND = Path("build/fuzz")
LIMITS = ("-timeout=2", "-max_len=8192", "-rss_limit_mb=2048", "-print_final_stats=1")
"""An input that takes two seconds or two gigabytes is a finding, too."""
MAX_KEPT = 60
"""Inputs of one target that are added to the committed corpus."""


def fuzz(name: str, seconds: int) -> bool:
    """Whether the target stood `seconds` of it."""
    found = FOUND / name
    found.mkdir(parents=True, exist_ok=True)
    print(f"fuzz: {name} for {seconds} s", flush=True)
    return _atheris(name, f"-max_total_time={seconds}", f"-artifact_prefix={found}/broken-", str(found), _seeds(name))


def keep(name: str) -> None:
    """Adds inputs of every length to the committed corpus; each of them reached something new when it was found."""
    found = sorted((FOUND / name).iterdir(), key=lambda path: path.stat().st_size)
    for path in found[:: len(found) // MAX_KEPT + 1]:
        data = path.read_bytes()
        (CORPUS / name / hashlib.sha256(data).hexdigest()[:12]).write_bytes(data)


def main() -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", default=list(TARGETS), metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--keep", action="store_true", help="add what was found to the committed corpus")
    options = parser.parse_args()
    if unknown := set(options.targets) - TARGETS.keys():
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    if importlib.util.find_spec("atheris") is None:
        print("fuzz: atheris has no wheel for this machine; the corpus is replayed by `make test`", file=sys.stderr)
        return 2
    broken = [name for name in options.targets if not fuzz(name, options.seconds)]
    if options.keep and not broken:
        for name in options.targets:
            keep(name)
    print(f"fuzz: {f'broken: {broken}, see {FOUND}' if broken else 'nothing broke'}")
    return 1 if broken else 0


def _seeds(name: str) -> str:
    return str(CORPUS / name)


def _atheris(name: str, *arguments: str) -> bool:
    command = [sys.executable, "-m", "tests.fuzz.one", name, *LIMITS, *arguments]
    return subprocess.run(command, check=False).returncode == 0


if __name__ == "__main__":
    raise SystemExit(main())
