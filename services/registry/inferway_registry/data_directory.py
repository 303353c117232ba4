"""The registry's own directory: one process at a time."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from inferway_chassis.addresses import SettingsRefused


@contextmanager
def claimed(directory: Path) -> Iterator[None]:
    """Holds the directory until the block or the process ends, however it ends; raises SettingsRefused if taken."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / "registry.lock").open("w")
    except OSError as error:
        raise SettingsRefused(f"data_dir {directory} cannot be written: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SettingsRefused(f"another registry uses data_dir {directory}; stop it, or choose another") from error
        yield
