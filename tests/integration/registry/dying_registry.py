"""A registry that kills itself in the middle of a publishing: `python -m tests.integration.registry.dying_registry`.

When a publishing begins and the data directory holds a file `die-at` with a number, the process ends by SIGKILL at
that many calls of the registry's own functions, wherever that is, on whichever thread.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

import inferway_registry
from inferway_chassis.process import main
from inferway_registry.app import running
from inferway_registry.settings import RegistrySettings

PACKAGE = str(Path(inferway_registry.__file__).parent)


class Death:
    """Counts calls, once armed."""

    def __init__(self, order: Path) -> None:
        """Is armed by the next publishing after `order` was written."""
        self._order = order
        self._left = 0

    def observe(self, frame: FrameType, event: str, _argument: object) -> None:
        """A profile function."""
        if event != "call" or not frame.f_code.co_filename.startswith(PACKAGE):
            return
        if self._left == 0 and frame.f_code.co_name == "PublishUpload" and self._order.exists():
            self._left = int(self._order.read_text())
            self._order.unlink()
        if self._left > 0:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    death = Death(Path(os.environ["INFERWAY_REGISTRY_DATA_DIR"]) / "die-at")
    sys.setprofile(death.observe)
    threading.setprofile(death.observe)
    raise SystemExit(main(RegistrySettings, running))
