"""
What does supervisord run for a state folder, and how is it told to start and stop?

supervisord leads a session that all its children stay in, so whatever is left of it is found and ended.
"""

import configparser
import os
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path

import psutil
from supervisor.xmlrpc import SupervisorTransport

from services.environment import outside_environment
from services.leftovers import end_all, session_members
from services.state import ServicesError, State

START_SECONDS = 20
STOP_SECONDS = 10


class Supervisor:
    """The supervisord of one state folder."""

    def __init__(self, state: State):
        """Connect to nothing yet."""
        self.state = state

    @property
    def _server(self) -> xmlrpc.client.ServerProxy:
        """Open a connection; a transport that failed once does not recover."""
        transport = SupervisorTransport(None, None, f"unix://{self.state.socket}")
        return xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)

    def is_up(self) -> bool:
        """Tell whether it answers."""
        try:
            return self._server.supervisor.getState()["statename"] == "RUNNING"
        except (OSError, HTTPException, xmlrpc.client.Error):
            return False

    def states(self) -> dict[str, str]:
        """Give the state of each program (RUNNING, STARTING, BACKOFF, FATAL, EXITED, STOPPED, ...)."""
        return {each["name"]: each["statename"] for each in self._server.supervisor.getAllProcessInfo()}

    def stages(self) -> list[list[str]]:
        """Group the programs by priority, in the order of their start."""
        config = configparser.RawConfigParser()
        config.read(self.state.supervisor_file)
        programs = [name for name in config.sections() if name.startswith("program:")]
        stages: dict[int, list[str]] = {}
        for name in sorted(programs, key=lambda name: config.getint(name, "priority")):
            stages.setdefault(config.getint(name, "priority"), []).append(name.removeprefix("program:"))
        return list(stages.values())

    def start_process(self, name: str) -> None:
        """Start a program; does not wait until it is ready."""
        with suppress(xmlrpc.client.Fault):
            self._server.supervisor.startProcess(name, False)

    def stop_processes(self, names: list[str]) -> None:
        """Stop programs at the same time and wait until they have ended, by force if need be."""
        for name in names:
            with suppress(xmlrpc.client.Fault):
                self._server.supervisor.stopProcess(name, False)
        while any(self.states()[name] in ("STOPPING", "RUNNING", "STARTING") for name in names):
            time.sleep(0.1)

    def start(self) -> None:
        """
        Start supervisord as a daemon.

        Raises:
            ServicesError: it did not start; the message has its reason.
        """
        command = [sys.executable, "-m", "supervisor.supervisord", "-c", str(self.state.supervisor_file)]
        started = subprocess.run(
            command, cwd="/", env=outside_environment(), capture_output=True, text=True, check=False
        )
        deadline = time.monotonic() + START_SECONDS
        while started.returncode == 0 and time.monotonic() < deadline:
            if self.is_up():
                return
            time.sleep(0.1)
        reason = (started.stderr.strip() or started.stdout.strip() or "no answer").splitlines()[-1]
        raise ServicesError(f"supervisord did not start: {reason}; see {self.state.logs}/supervisord.log")

    def stop(self) -> None:
        """End supervisord and whatever is left of its session."""
        session = self.session()
        with suppress(OSError, HTTPException, xmlrpc.client.Error):
            self._server.supervisor.shutdown()
        deadline = time.monotonic() + STOP_SECONDS
        while self.is_up() and time.monotonic() < deadline:
            time.sleep(0.1)
        if session:
            end_all(session_members(session))
        for path in (self.state.socket, self.pid_file):
            path.unlink(missing_ok=True)

    @property
    def pid_file(self) -> Path:
        """Where supervisord writes its process id, which is that of its session."""
        return self.state.folder / "supervisord.pid"

    def session(self) -> int | None:
        """
        Give the session of this supervisord, which may have died without its children; None for none.

        A pid that went to another program since, or to another boot of the machine, does not count.
        """
        try:
            written, pid = self.pid_file.stat().st_mtime, int(self.pid_file.read_text())
        except (OSError, ValueError):
            return None
        if written < psutil.boot_time():
            return None
        try:
            is_ours = str(self.state.supervisor_file) in psutil.Process(pid).cmdline()
        except psutil.Error:
            is_ours = bool(session_members(pid))
        return pid if is_ours and pid != os.getsid(0) else None


def take_down(supervisor: Supervisor, report: Callable[[str], None]) -> None:
    """Stop every process, in the reverse order of their start, then supervisor and what is left."""
    if supervisor.is_up():
        for names in reversed(supervisor.stages()):
            supervisor.stop_processes(names)
            report(", ".join(names))
    supervisor.stop()
