"""
End what a process that died left behind, before its successor starts.

    python -m services.leftovers <pid file> <own pid>

A server that was killed may leave children that hold its port; a scheduler, tasks that nobody counts any more
(the new one runs them again). They share the session with supervisor's other children and keep their dead
parent's process group, a task leads a group of its own below one of them.
"""

import os
import sys
from contextlib import suppress
from pathlib import Path

import psutil


def main(pid_file: Path, own_pid: int) -> None:
    """End what the process of the pid file left in this session, then write the own pid there."""
    with suppress(OSError, ValueError):
        if (group := int(pid_file.read_text())) != own_pid:
            end_group(group, os.getsid(0))
    pid_file.write_text(str(own_pid))


def end_group(group: int, session: int) -> None:
    """End every process of a group in a session, and what descends from it."""
    members = [process for process in session_members(session) if _group(process.pid) == group]
    end_all([child for process in members for child in _children(process)] + members)


def session_members(session: int) -> list[psutil.Process]:
    """List the processes of a session."""
    members = []
    for process in psutil.process_iter():
        with suppress(OSError, psutil.Error):
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                members.append(process)
    return members


def end_all(processes: list[psutil.Process], *, grace_seconds: float = 3) -> None:
    """Ask processes to end, kill those that do not, and wait until they are gone."""
    for process in processes:
        with suppress(psutil.Error):
            process.terminate()
    _, alive = psutil.wait_procs(processes, timeout=grace_seconds)
    for process in alive:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(alive, timeout=10)


def _group(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except OSError:
        return -1


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
