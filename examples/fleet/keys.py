"""Single keys from a terminal, without Return, while an event loop runs."""

from __future__ import annotations

import asyncio
import os
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

MOST_BYTES = 64


@contextmanager
def keys_pressed(stdin: TextIO, press: Callable[[str], None]) -> Iterator[None]:
    """Calls `press` with each key while the body runs; if `stdin` is no terminal, never.

    Ctrl-C stays what it is, and the terminal is afterwards as it was.
    """
    if not stdin.isatty():
        yield
        return
    terminal, loop = stdin.fileno(), asyncio.get_running_loop()
    before = termios.tcgetattr(terminal)

    def read() -> None:
        try:
            pressed = os.read(terminal, MOST_BYTES)
        except OSError:  # it was closed
            pressed = b""
        if not pressed:
            loop.remove_reader(terminal)
        for key in pressed.decode(errors="ignore"):
            press(key)

    tty.setcbreak(terminal)
    loop.add_reader(terminal, read)
    try:
        yield
    finally:
        loop.remove_reader(terminal)
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
