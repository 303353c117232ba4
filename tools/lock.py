"""Writes the hashed locks in requirements/ from the dependency lists of the three pyproject.toml files.

    python tools/lock.py              locks what is new and keeps every pin that still fits
    python tools/lock.py --upgrade    locks the newest of everything
    python tools/lock.py --check      exits 1 if a lock is out of step with the lists (needs no network)

There is one resolve, `dev`, which holds everything but what only GPUs need; the others take their pins from it, so a
package has the same version everywhere. A lock never names an index: where packages come from is a matter of the
machine.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / "requirements"
UV = shutil.which("uv") or "uv"
OWN_NAMES = {"inferway", "inferway-client", "inferway-protos"}
UV_OPTIONS = (
    *("--universal", "--python-version", "3.11", "--generate-hashes"),
    *("--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links", "--quiet"),
)


def name_of(requirement: str) -> str:
    """The normalised name of a requirement such as `Foo_bar[extra]>=1 ; marker`."""
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match, requirement
    return re.sub(r"[-_.]+", "-", match.group()).lower()


def requirements() -> dict[str, list[str]]:
    """What each lock has to satisfy, by the name of the lock; `dev` comes first."""
    root, protos, client = (
        tomllib.loads((ROOT / folder / "pyproject.toml").read_text()) for folder in (".", "protos", "clients/python")
    )
    groups: dict[str, list[str]] = root["dependency-groups"]
    extras: dict[str, list[str]] = root["project"]["optional-dependencies"]
    contract: list[str] = protos["project"]["dependencies"]
    chassis = contract + root["project"]["dependencies"]
    units = {name: chassis + extras[name] for name in ("gateway", "registry", "inference")}
    units["gateway"] += extras["redis"]
    units["client"] = contract + client["project"]["dependencies"]
    units["runtime"] = [line for lines in units.values() for line in lines] + extras["cli"] + extras["native"]
    dev = units["runtime"] + groups["build"] + groups["dev"]
    gpu = chassis + extras["inference-gpu"]
    wanted = {"dev": dev, **units, "inference-gpu": gpu, "build": groups["build"], "gen": groups["gen"]}
    return {name: sorted({line for line in lines if name_of(line) not in OWN_NAMES}) for name, lines in wanted.items()}


def pins(lock: str) -> dict[str, set[str]]:
    """The pinned versions in the text of a lock, by package; several where they depend on the Python version."""
    found: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", lock, flags=re.MULTILINE):
        found.setdefault(name_of(name), set()).add(version)
    return found


def foreign_lines(lock: str) -> list[str]:
    """Lines that are neither a pin, nor a hash, nor a comment: addresses and options have no place in a lock."""
    pin = r"[A-Za-z0-9._-]+(\[[^\]]*\])?==\S+( ; [^:]+)? \\"
    permitted = re.compile(rf"\s*#.*|\s+--hash=sha256:[0-9a-f]{{64}}( \\)?|{pin}")
    return [line for line in lock.splitlines() if "://" in line or not permitted.fullmatch(line)]


def write(name: str, lines: list[str], *, upgrade: bool) -> None:
    """Resolves one lock; all but `dev` are constrained to the pins of `dev`."""
    lock = LOCKS / f"{name}.txt"
    options = [*UV_OPTIONS, "--output-file", str(lock)]
    if name != "dev":
        options += ["--constraint", str(LOCKS / "dev.txt")]
    elif upgrade:
        options += ["--upgrade"]
    with tempfile.NamedTemporaryFile("w", suffix=".in") as source:
        source.write("\n".join(lines) + "\n")
        source.flush()
        subprocess.run([UV, "pip", "compile", *options, source.name], check=True, stdout=subprocess.DEVNULL)


def problems(name: str, lines: list[str], shared: dict[str, set[str]]) -> list[str]:
    """What is wrong with a lock, judged without the network. `shared` are the pins of `dev`."""
    path = LOCKS / f"{name}.txt"
    if not path.exists():
        return [f"{path.name} is missing"]
    lock = path.read_text()
    pinned = pins(lock)
    missing = {name_of(line) for line in lines} - pinned.keys()
    differing = {package for package, versions in pinned.items() if not versions <= shared.get(package, versions)}
    return [
        *(f"{path.name}: {package} is required but not locked" for package in sorted(missing)),
        *(f"{path.name}: {package} has another version than in dev.txt" for package in sorted(differing)),
        *(f"{path.name}: not a pin or a hash: {line}" for line in foreign_lines(lock)),
    ]


def main() -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions")
    options = parser.parse_args()
    wanted = requirements()
    if not options.check:
        for name, lines in wanted.items():
            print(f"locking {name} ({len(lines)} requirements)", flush=True)
            write(name, lines, upgrade=options.upgrade)
    dev = LOCKS / "dev.txt"
    shared = pins(dev.read_text()) if dev.exists() else {}
    found = [problem for name, lines in wanted.items() for problem in problems(name, lines, shared)]
    if found:
        print("Locks are out of step; run `make lock` and commit:", *found, sep="\n  ", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
