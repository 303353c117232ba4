"""One process of the stack: started, watched, restarted when it dies, ended.

    start → until_serving → supervise ⟲ (restart with backoff) → stop

It has a session of its own, so that Ctrl-C in the terminal reaches only `inferway up`, which ends them in order; and
it is tethered, so that it never outlives `inferway up`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress

from inferway_cli.console import CommandError
from inferway_cli.health import until_serving
from inferway_cli.stack.log_file import LogFile
from inferway_cli.stack.plan import ProcessPlan

START_SECONDS = 60.0
FIRST_BACKOFF_SECONDS = 0.2
MAX_BACKOFF_SECONDS = 10.0
LAST_OUTPUT_SECONDS = 0.5
STABLE_SECONDS = 30.0
"""A process that lived this long starts its backoff anew."""


class Child:
    """Runs a plan; `tell` gets a line whenever something happens that the user should know."""

    def __init__(self, plan: ProcessPlan, log: LogFile, tell: Callable[[str], None]) -> None:
        """Nothing runs yet."""
        self.plan = plan
        self._log = log
        self._tell = tell
        self._stopping = False
        self._process: asyncio.subprocess.Process | None = None
        self._copying: set[asyncio.Task[None]] = set()

    @property
    def pid(self) -> int | None:
        """The process's id while it runs."""
        return None if self._process is None or self._process.returncode is not None else self._process.pid

    async def start(self) -> None:
        """Starts the process."""
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "inferway_cli.stack.tether", str(os.getpid()), self.plan.module),
            env={**os.environ, **self.plan.environment},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        copying = asyncio.create_task(self._log.copy(self._process.stdout))
        self._copying.add(copying)
        copying.add_done_callback(self._copying.discard)

    async def until_serving(self, seconds: float = START_SECONDS) -> None:
        """Returns when the process serves; raises CommandError with its last words if it ends or takes too long."""
        assert self._process is not None
        serving = asyncio.create_task(until_serving(self.plan.target))
        ended = asyncio.create_task(self._process.wait())
        try:
            await asyncio.wait([serving, ended], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            serving.cancel()
            ended.cancel()
        if not serving.done() or serving.cancelled():
            raise CommandError(await self._last_words(seconds))
        await serving

    async def supervise(self) -> None:
        """Restarts the process whenever it ends, until `stop`."""
        backoff = FIRST_BACKOFF_SECONDS
        while True:
            started = asyncio.get_running_loop().time()
            await self._ended()
            if self._stopping:
                return
            if asyncio.get_running_loop().time() - started > STABLE_SECONDS:
                backoff = FIRST_BACKOFF_SECONDS
            self._tell(f"{self.plan.name} {self._how_it_ended()}; restarting in {backoff:g} s, log {self._log.path}")
            await asyncio.sleep(backoff)
            backoff = min(backoff * 2, MAX_BACKOFF_SECONDS)
            await self._restart()

    async def stop(self, seconds: float) -> None:
        """Asks the process to end, and kills it with all it started when it has not after `seconds`."""
        self._stopping = True
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            self._process.terminate()
        try:
            await asyncio.wait_for(self._ended(), seconds)
        except TimeoutError:
            self._tell(f"{self.plan.name} did not end within {seconds:g} s and was killed")
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            await self._ended()

    async def _restart(self) -> None:
        await self.start()
        try:
            await self.until_serving()
        except CommandError as error:
            self._tell(str(error))
        else:
            self._tell(f"{self.plan.name} serves again")

    async def _ended(self) -> None:
        assert self._process is not None
        await self._process.wait()
        if self._copying:  # what the process started may hold the pipe open
            await asyncio.wait(self._copying, timeout=LAST_OUTPUT_SECONDS)

    async def _last_words(self, seconds: float) -> str:
        if self.pid is not None:
            return f"{self.plan.name} did not serve within {seconds:g} s; log {self._log.path}"
        await self._ended()
        return f"{self.plan.name} {self._how_it_ended()} while starting: {self._log.last_line} (log {self._log.path})"

    def _how_it_ended(self) -> str:
        status = self._process.returncode if self._process is not None else None
        if status is None or status >= 0:
            return f"ended with status {status}"
        return f"was ended by {signal.Signals(-status).name}"
