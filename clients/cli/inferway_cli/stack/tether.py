"""`python -m inferway_cli.stack.tether PARENT MODULE [ARGUMENT ...]`: runs a module that ends when its parent does.

On Linux the kernel sends SIGTERM when the parent is gone, however it went. Elsewhere the child outlives a parent that
was killed.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Ties this process to its parent and becomes the module."""
    parent, module, *arguments = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != int(parent):  # it was gone before the kernel knew of our wish
            raise SystemExit(1)
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])  # noqa: S606 - our own interpreter


if __name__ == "__main__":
    main()
