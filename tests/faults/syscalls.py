"""
Which calls change files below a folder, and how does a process die in the middle of one?

A seccomp filter stops the process, and all that it starts, at the calls that write, sync, rename, make or
remove files; whoever traces it (ptrace) looks at each, and may kill there. So faults fall where they do in
life, in C++ and SQL libraries too, and nothing of the code under test is replaced. Linux on x86_64.
"""

import ctypes
import os
import platform
import signal
import struct
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

IS_SUPPORTED = platform.system() == "Linux" and platform.machine() == "x86_64"

# Number: name, index of the argument that tells the file, and how it does.
CALLS: dict[int, tuple[str, int, Literal["descriptor", "path", "at"]]] = {
    1: ("write", 0, "descriptor"),
    18: ("pwrite", 0, "descriptor"),
    20: ("writev", 0, "descriptor"),
    40: ("sendfile", 0, "descriptor"),
    74: ("fsync", 0, "descriptor"),
    75: ("fdatasync", 0, "descriptor"),
    77: ("ftruncate", 0, "descriptor"),
    82: ("rename", 1, "path"),
    83: ("mkdir", 0, "path"),
    84: ("rmdir", 0, "path"),
    87: ("unlink", 0, "path"),
    257: ("open", 0, "at"),
    258: ("mkdir", 0, "at"),
    263: ("unlink", 0, "at"),
    264: ("rename", 2, "at"),
    316: ("rename", 2, "at"),
    326: ("copy", 2, "descriptor"),
}
OPEN = 257
CREATES = os.O_CREAT | os.O_TRUNC
TORN = ("write", "pwrite")

_TRACEME, _CONT, _POKEUSER, _SYSCALL = 0, 7, 6, 24
_SETOPTIONS, _GETEVENTMSG, _GET_SYSCALL_INFO = 0x4200, 0x4201, 0x420E
# System calls told apart from traps; forks, threads and programs followed; all killed with the tracer.
_OPTIONS = 0x1 | 0x2 | 0x4 | 0x8 | 0x10 | 0x80 | 0x100000
_EVENT_SECCOMP, _NEW_TASK_EVENTS = 7, (1, 2, 3)
_RDX = 12 * 8
_WALL = 0x40000000
_SYSCALL_STOP = signal.SIGTRAP | 0x80

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.restype = ctypes.c_long
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


@dataclass
class Traced:
    """
    A process that is followed: what is to happen to it, and what it did.

    At its call number ``stop_at`` (from 1, among those below ``folder``) it is killed before the call
    (``kill``), killed with half of the bytes written (``tear``), or held until every other process that is
    followed has ended (``hold``). ``calls`` are what it did: name and path below the folder.
    """

    pid: int
    folder: Path
    stop_at: int | None = None
    action: Literal["kill", "tear", "hold"] = "kill"
    hold_seconds: float = 30.0
    calls: list[str] = field(default_factory=list)
    status: int | None = None
    held: int | None = None

    @property
    def exit_code(self) -> int:
        """Exit code, or minus the signal."""
        return os.waitstatus_to_exitcode(self.status)


def stop_at_file_calls() -> None:
    """Ask to be traced, and stop at every call of ``CALLS``; for the process that is followed."""
    _ptrace(_TRACEME, 0)
    os.kill(os.getpid(), signal.SIGSTOP)
    load_number = struct.pack("HBBI", 0x20, 0, 0, 0)
    equal = [struct.pack("HBBI", 0x15, len(CALLS) - n, 0, number) for n, number in enumerate(CALLS)]
    allow, trace = struct.pack("HBBI", 0x06, 0, 0, 0x7FFF0000), struct.pack("HBBI", 0x06, 0, 0, 0x7FF00000)
    program = ctypes.create_string_buffer(b"".join([load_number, *equal, allow, trace]))
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(CALLS) + 3, ctypes.addressof(program)))
    no_new_privileges, set_seccomp, filter_mode = 38, 22, 2
    if _libc.prctl(no_new_privileges, 1, 0, 0, 0) or _libc.prctl(set_seccomp, filter_mode, header, 0, 0):
        raise OSError(ctypes.get_errno(), "cannot install the seccomp filter")


def follow(processes: list[Traced]) -> None:
    """Let the stopped processes go on until all have ended, doing to them what they say."""
    tasks = {process.pid: process for process in processes}
    dying: set[int] = set()
    for process in processes:
        os.waitpid(process.pid, _WALL)
        _ptrace(_SETOPTIONS, process.pid, 0, _OPTIONS)
        _ptrace(_CONT, process.pid)
    while any(process.status is None for process in processes):
        _let_held_go(processes)
        task, status = os.waitpid(-1, _WALL | (os.WNOHANG if _is_one_held(processes) else 0))
        if task == 0:
            time.sleep(0.01)
            continue
        process = tasks.setdefault(task, _owner(task, tasks) or processes[0])
        if os.WIFEXITED(status) or os.WIFSIGNALED(status):
            if task == process.pid:
                process.status = status
            continue
        event, stopped_by = status >> 16, os.WSTOPSIG(status)
        if event in _NEW_TASK_EVENTS:
            tasks[_event_message(task)] = process
        if task in dying and stopped_by == _SYSCALL_STOP:
            os.kill(process.pid, signal.SIGKILL)
        elif event == _EVENT_SECCOMP and (size := _look(task, process)) is not None:
            _act(task, process, size, dying)
        else:
            is_signal = event == 0 and stopped_by not in (signal.SIGSTOP, signal.SIGTRAP, _SYSCALL_STOP)
            _ptrace(_CONT, task, 0, stopped_by if is_signal else 0)


def _look(task: int, process: Traced) -> int | None:
    """Note a call that changes a file below the folder; give its size where it is the one to act at."""
    number, arguments = _call_of(task)
    name, where, how = CALLS[number]
    if number == OPEN and not arguments[2] & CREATES:
        return None
    path = _path_of(task, arguments, where, how)
    if path is None or not path.startswith(f"{process.folder}/"):
        return None
    process.calls.append(f"{name} {path[len(str(process.folder)) + 1 :]}")
    return arguments[2] if len(process.calls) == process.stop_at else None


def _act(task: int, process: Traced, size: int, dying: set[int]) -> None:
    if process.action == "hold":
        process.held = task
        process.hold_until = time.monotonic() + process.hold_seconds
    elif process.action == "tear" and process.calls[-1].split()[0] in TORN and size > 1:
        _ptrace(_POKEUSER, task, _RDX, size // 2)
        dying.add(task)
        _ptrace(_SYSCALL, task)
    else:
        os.kill(process.pid, signal.SIGKILL)


def _is_one_held(processes: list[Traced]) -> bool:
    return any(process.held is not None for process in processes)


def _let_held_go(processes: list[Traced]) -> None:
    for process in processes:
        others_ended = all(p.status is not None for p in processes if p is not process)
        if process.held is not None and (others_ended or time.monotonic() > process.hold_until):
            _ptrace(_CONT, process.held)
            process.held = None


def _owner(task: int, tasks: dict[int, Traced]) -> Traced | None:
    """Give whose thread or child a task is, which may show up before its parent tells of it."""
    try:
        facts = dict(line.split(":", 1) for line in Path(f"/proc/{task}/status").read_text().splitlines())
    except OSError:
        return None
    return tasks.get(int(facts["Tgid"])) or tasks.get(int(facts["PPid"]))


def _call_of(task: int) -> tuple[int, tuple[int, ...]]:
    info = ctypes.create_string_buffer(128)
    _ptrace(_GET_SYSCALL_INFO, task, len(info), ctypes.addressof(info))
    number, *arguments = struct.unpack_from("=7Q", info.raw, 24)
    return number, tuple(arguments)


def _path_of(task: int, arguments: tuple[int, ...], where: int, how: str) -> str | None:
    """Give the absolute path that a call is about; None where it is about no file."""
    try:
        if how == "descriptor":
            return os.readlink(f"/proc/{task}/fd/{arguments[where]}")
        address = arguments[where + 1] if how == "at" else arguments[where]
        path = _read_text(task, address)
        if path.startswith("/"):
            return path
        folder = ctypes.c_int(arguments[where]).value if how == "at" else -100
        base = f"/proc/{task}/cwd" if folder < 0 else f"/proc/{task}/fd/{folder}"
        return f"{os.readlink(base)}/{path}"
    except OSError:
        return None


def _read_text(task: int, address: int) -> str:
    with open(f"/proc/{task}/mem", "rb", buffering=0) as memory:
        text = b""
        while b"\0" not in text and len(text) < 4096:
            memory.seek(address + len(text))
            text += memory.read(256 - (address + len(text)) % 256)
    return os.fsdecode(text.split(b"\0")[0])


def _event_message(task: int) -> int:
    message = ctypes.c_ulong()
    _ptrace(_GETEVENTMSG, task, 0, ctypes.addressof(message))
    return message.value


def _ptrace(request: int, task: int, address: int = 0, data: int = 0) -> None:
    """Call ptrace; that the task was killed meanwhile is no error."""
    no_such_task = 3
    if _libc.ptrace(request, task, address, data) == -1 and ctypes.get_errno() != no_such_task:
        raise OSError(ctypes.get_errno(), f"ptrace request {request:#x} on {task} failed")
