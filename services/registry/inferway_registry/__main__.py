"""Runs the registry: `python -m inferway_registry`."""

from inferway_chassis.process import main
from inferway_registry.app import running
from inferway_registry.settings import RegistrySettings

if __name__ == "__main__":
    raise SystemExit(main(RegistrySettings, running))
