"""Failpoints: moments in our own code at which a test stops or ends the process, where chance would take years.

    INFERWAY_FAILPOINTS="durable-file.written=kill@2, link.answer=stop"

`kill` and `stop` are SIGKILL and SIGSTOP; `@N` waits for the N-th time. Without the variable nothing is armed, and a
place costs one look at an empty dictionary. With it, the process says so at its start, and refuses what it does not
know.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Mapping

VARIABLE = "INFERWAY_FAILPOINTS"
KNOWN: Mapping[str, str] = {
    "durable-file.written": "a file's new content is on disk under its temporary name, and not yet in its place",
    "link.answer": "a worker has computed an answer, and not yet told the gateway",
}
"""Every failpoint, and when it is reached."""

_ACTIONS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}
_FORM = re.compile(rf"\s*(?P<name>[a-z.-]+)=(?P<action>{'|'.join(_ACTIONS)})(@(?P<time>[1-9][0-9]*))?\s*")


class Failpoint:
    """One that is armed."""

    def __init__(self, action: signal.Signals, time: int) -> None:
        """Acts at the `time`-th time, counted from 1, and at no other."""
        self._action, self._left = action, time

    def reached(self) -> None:
        """The process is there."""
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), self._action)


def parsed(text: str) -> dict[str, Failpoint]:
    """What `text` arms; raises ValueError if a part of it is no failpoint."""
    armed = {}
    for part in filter(None, text.split(",")):
        match = _FORM.fullmatch(part)
        if match is None or match["name"] not in KNOWN:
            message = f"{VARIABLE}: {part!r} is none of {', '.join(KNOWN)} with =kill or =stop, and perhaps @N"
            raise ValueError(message)
        armed[match["name"]] = Failpoint(_ACTIONS[match["action"]], int(match["time"] or 1))
    return armed


ARMED = parsed(os.environ.get(VARIABLE, ""))
if ARMED:
    sys.stderr.write(f"inferway: {VARIABLE} is set: this process will end or stop at {', '.join(ARMED)}\n")


def reach(name: str) -> None:
    """The process is at the failpoint `name`."""
    failpoint = ARMED.get(name)
    if failpoint is not None:
        failpoint.reached()
