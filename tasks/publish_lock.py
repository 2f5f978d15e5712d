"""
Who publishes now? One process at a time may publish, roll back or promote.

The lock is an ``fcntl`` lock on ``<release_root>/publish.lock``, so the release root is a local folder or a
shared file system with locks (NFS 4). Readers need no lock. The system lets go of it when its process ends,
however it ends.
"""

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

LOCK = "publish.lock"
LOCK_TIMEOUT_SECONDS = 600.0
POLL_SECONDS = 0.2


class PublishLocked(TimeoutError):
    """Another process is publishing."""


class ReleaseRootUnusable(OSError):
    """The release root cannot be written; the message names it and what to do."""


@contextmanager
def publish_lock(root: Path, timeout_seconds: float) -> Iterator[None]:
    """
    Wait for the lock of a release root and hold it.

    Raises:
        PublishLocked: another process held it for all of ``timeout_seconds``.
        ReleaseRootUnusable: the lock file cannot be opened for writing.
    """
    deadline = time.monotonic() + timeout_seconds
    with _open_lock(root) as file:
        while not _try_lock(file.fileno()):
            if time.monotonic() >= deadline:
                file.seek(0)
                raise PublishLocked(
                    f"{root / LOCK} is held by {file.read().strip() or 'another process'}: "
                    "wait until it is done, or stop it"
                )
            time.sleep(POLL_SECONDS)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def _open_lock(root: Path) -> TextIO:
    try:
        root.mkdir(parents=True, exist_ok=True)
        return (root / LOCK).open("a+")
    except OSError as error:
        raise ReleaseRootUnusable(
            f"cannot write {root / LOCK} ({error.strerror}): let this user write below {root}, "
            "or name another folder (VAR= or TRIBUTARY_RELEASE_ROOT)"
        ) from error


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
