"""
Run functions in processes that may be killed: a server that has imported everything forks one for each.

A job is a function of a module of these tests with JSON arguments; what it returns comes back as JSON. The
server itself computes nothing, so that its children start as clean as a fresh process.

    python -m tests.faults.children MODULE...
"""

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import traceback
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from tests.conftest import REPOSITORY
from tests.faults.syscalls import Traced, follow, stop_at_file_calls

TIMEOUT_SECONDS = 300


@dataclass(frozen=True)
class Job:
    """
    One call of ``function`` ("module:name") in a process of its own.

    With ``folder`` its file calls below it are counted, and ``action`` happens at number ``stop_at``, see
    ``syscalls.Traced``. ``file_bytes`` limits the size of a file that it writes.
    """

    function: str
    arguments: dict[str, Any] = field(default_factory=dict)
    folder: str | None = None
    stop_at: int | None = None
    action: Literal["kill", "tear", "hold"] = "kill"
    hold_seconds: float = 30.0
    file_bytes: int | None = None
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ended:
    """
    How a job ended: exit code or minus the signal, its value or error, its file calls, all it printed.

    ``is_retried``: the error is one of the operating system or the network, which Airflow tries again.
    """

    exit_code: int
    value: Any
    error: str | None
    is_retried: bool
    calls: list[str]
    output: str


class Children:
    """A running server."""

    def __init__(self, modules: list[str], environment: dict[str, str]):
        """Start it; the modules are imported before the first job."""
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.children", *modules],
            cwd=REPOSITORY,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, *jobs: Job) -> list[Ended]:
        """Run jobs at once, each in its own process, until all have ended."""
        self._server.stdin.write(json.dumps([asdict(job) for job in jobs]) + "\n")
        self._server.stdin.flush()
        answer = self._server.stdout.readline()
        assert answer, f"the fork server ended with {self._server.wait()}"
        return [Ended(**facts) for facts in json.loads(answer)]

    def call(self, function: str, **arguments: Any) -> Any:
        """Run one job that must succeed; give its value."""
        (ended,) = self.run(Job(function, arguments))
        assert ended.exit_code == 0, ended.output[-4000:]
        return ended.value

    def close(self) -> None:
        """Stop it."""
        self._server.stdin.close()
        self._server.wait(30)


def main(modules: list[str]) -> None:
    """Serve jobs from standard input until it ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for module in modules:
        import_module(module)
    for line in sys.stdin:
        jobs = [Job(**facts) for facts in json.loads(line)]
        with tempfile.TemporaryDirectory(prefix="tributary-faults-") as folder:
            print(json.dumps([asdict(ended) for ended in _run(jobs, Path(folder))]), file=answers, flush=True)


def _run(jobs: list[Job], folder: Path) -> list[Ended]:
    places = [folder / str(number) for number in range(len(jobs))]
    pids = [_start(job, place) for job, place in zip(jobs, places, strict=True)]
    traced = [
        Traced(pid, Path(job.folder), job.stop_at, job.action, job.hold_seconds) if job.folder else None
        for job, pid in zip(jobs, pids, strict=True)
    ]
    if any(traced):
        follow([process for process in traced if process])
    codes = [
        process.exit_code if process else os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        for process, pid in zip(traced, pids, strict=True)
    ]
    return [
        _ended(code, process.calls if process else [], place)
        for code, process, place in zip(codes, traced, places, strict=True)
    ]


def _start(job: Job, place: Path) -> int:
    if pid := os.fork():
        return pid
    try:
        output = os.open(f"{place}.output", os.O_WRONLY | os.O_CREAT)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.environ.update(job.environment)
        signal.alarm(TIMEOUT_SECONDS)
        if job.file_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (job.file_bytes, resource.RLIM_INFINITY))
        if job.folder:
            stop_at_file_calls()
        module, _, name = job.function.partition(":")
        facts = {"value": getattr(import_module(module), name)(**job.arguments)}
    except BaseException as error:
        traceback.print_exc()
        facts = {"error": f"{type(error).__name__}: {error}", "is_retried": isinstance(error, OSError)}
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    Path(f"{place}.json").write_text(json.dumps(facts, default=str))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1 if "error" in facts else 0)


def _ended(code: int, calls: list[str], place: Path) -> Ended:
    facts: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        facts = json.loads(Path(f"{place}.json").read_text())
    output = Path(f"{place}.output").read_text(errors="replace")
    is_retried = facts.get("is_retried", False)
    return Ended(code, facts.get("value"), facts.get("error"), is_retried, calls, output)


if __name__ == "__main__":
    main(sys.argv[1:])
