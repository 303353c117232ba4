"""`python -m inferway_inference` runs a worker."""

from inferway_chassis.process import main
from inferway_inference.allocator import keep_freed_memory
from inferway_inference.app import running
from inferway_inference.settings import InferenceSettings

if __name__ == "__main__":
    keep_freed_memory()
    raise SystemExit(main(InferenceSettings, running))
