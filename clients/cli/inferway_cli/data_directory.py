"""Where `inferway up` keeps everything: which directory, what is in it, and that only one stack uses it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

import platformdirs
import typer

from inferway_cli.console import CommandError

DataDirOption = Annotated[
    Path | None,
    typer.Option("--data-dir", envvar="INFERWAY_DATA_DIR", help="Where everything is kept.", show_default="user data"),
]


@dataclass(frozen=True, slots=True)
class DataDirectory:
    """The layout of the directory."""

    root: Path

    @classmethod
    def choose(cls, named: Path | None) -> Self:
        """The directory that was named, else the platform's place for the user's data."""
        return cls((named or Path(platformdirs.user_data_dir("inferway", appauthor=False))).expanduser().absolute())

    @property
    def traces(self) -> Path:
        """SQLite file of the last traces."""
        return self.root / "traces.db"

    @property
    def logs(self) -> Path:
        """One file for each process."""
        return self.root / "logs"

    @property
    def demo(self) -> Path:
        """The demo's model and its held-out images."""
        return self.root / "demo"

    def of(self, process: str) -> Path:
        """What a service process keeps."""
        return self.root / process

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Makes the directory and holds it; raises CommandError if another stack does, or if it cannot be written."""
        try:
            self.logs.mkdir(parents=True, exist_ok=True)
            lock = (self.root / "up.lock").open("a+")
        except OSError as error:
            raise CommandError(
                f"{error.filename or self.root}: {error.strerror}; --data-dir chooses another place"
            ) from None
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise CommandError(
                    f"another `inferway up`{_holder(lock.name)} uses {self.root}; stop it, or choose --data-dir"
                ) from None
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            yield


def _holder(path: str) -> str:
    process = Path(path).read_text().strip()
    return f" (process {process})" if process else ""
