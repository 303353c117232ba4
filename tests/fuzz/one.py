"""One fuzz target under atheris: `python -m tests.fuzz.one TARGET LIBFUZZER_ARGUMENTS`. `run` calls this."""

from __future__ import annotations

import sys

import atheris

INSTRUMENTED = ["inferway", "inferway_chassis", "inferway_gateway", "inferway_inference"]


def main() -> None:
    """Does not return: libFuzzer ends the process."""
    with atheris.instrument_imports(include=INSTRUMENTED):  # whatever is imported before sees no coverage
        from tests.fuzz.targets import TARGETS  # noqa: PLC0415
    name, *arguments = sys.argv[1:]
    atheris.Setup([sys.argv[0], *arguments], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
