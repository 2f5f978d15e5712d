"""
How are clicks taken from a file of JSON lines that grows? One click a line, from the first unfinished one.

    <file>             one JSON object a line; lines are only added, and a line counts once it has its end
    <file>.offset      where the first unfinished line starts, how often it was taken, and which file it was
    <file>.aside       what was put aside, one JSON object a line, with the reason
    <file>.lock        held by the one worker

Whoever kills the worker loses nothing: the lines from the offset on are taken again. A line that was taken
before is then taken alone, so that one that kills the worker takes no others along. A file that became
shorter, or begins otherwise than before, is another one and read from its start.
"""

import fcntl
import hashlib
import json
import logging
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from nearline.candidates import StoreUnavailable
from nearline.clicks import LONGEST_EVENT, Click, Delivery

POLL_SECONDS = 0.01
MOST_COUNTED = 1 << 24
# A file is known again by its inode and what of its first bytes was finished.
HEAD_BYTES = 1 << 10

log = logging.getLogger(__name__)


class ClickFileTaken(ValueError):
    """Another worker reads the file."""


class ClickFile:
    """See ``nearline.click_source.ClickSource``."""

    def __init__(self, path: Path) -> None:
        """Open nothing yet; the file may come later."""
        self._path = path
        self._offset_path, self._aside_path, self._lock_path = (
            path.with_name(path.name + end) for end in (".offset", ".aside", ".lock")
        )
        self._lock: BinaryIO | None = None
        self._offset, self._n_taken, self._inode = 0, 0, 0
        self._head, self._begins_with = "", b""
        self._ends: dict[int, int] = {}
        self._finished: set[int] = set()
        self._aside: set[int] = set()

    def send(self, clicks: Iterable[Click]) -> None:
        """Add lines in one write."""
        lines = "".join(json.dumps(click.fields()) + "\n" for click in clicks)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab", buffering=0) as file:
            file.write(lines.encode())

    def take(self, n: int, wait_seconds: float) -> list[Delivery]:
        """
        Take lines from the first unfinished one on; ``arrived_at`` is when they are taken.

        Raises:
            ClickFileTaken: another process takes them.
            StoreUnavailable: the file cannot be read.
        """
        try:
            if self._lock is None:
                self._begin()
            until = time.monotonic() + wait_seconds
            while not (lines := self._read(1 if self._n_taken else n)) and time.monotonic() < until:
                time.sleep(POLL_SECONDS)
            if not lines:
                return []
            self._save(self._offset, self._n_taken + 1)
        except OSError as error:
            raise StoreUnavailable(
                f"the click file {self._path} cannot be used ({error}): check it"
            ) from error
        self._ends = {start: end for start, end, _ in lines}
        self._finished, self._aside = set(), set()
        now = time.time()
        return [Delivery(str(start), line, self._n_taken, now) for start, _, line in lines]

    def finish(self, deliveries: Iterable[Delivery]) -> None:
        """Move the offset behind the lines that are finished and have none unfinished before them."""
        self._finished.update(int(delivery.event_id) for delivery in deliveries)
        offset = self._offset
        while offset in self._finished:
            offset = self._ends[offset]
        if offset == self._offset:
            return
        try:
            self._save(offset, 0 if self._finished == set(self._ends) else self._n_taken)
        except OSError as error:
            raise StoreUnavailable(
                f"{self._offset_path} cannot be written ({error}): make room or mend its rights"
            ) from error

    def hold(self, deliveries: Iterable[Delivery]) -> None:
        """Do nothing: the file's lock keeps other workers out."""

    def give_back(self, deliveries: Iterable[Delivery]) -> None:
        """Count the last taking of the lines that are not finished as none."""
        if not self._n_taken:
            return
        try:
            self._save(self._offset, self._n_taken - 1)
        except OSError as error:
            raise StoreUnavailable(
                f"{self._offset_path} cannot be written ({error}): make room or mend its rights"
            ) from error

    def put_aside(self, delivery: Delivery, reason: str) -> None:
        """Add the line and the reason to the other file; once, where finishing it has to be tried again."""
        told = {"event": delivery.fields, "reason": reason, "n_deliveries": delivery.n_deliveries}
        try:
            if int(delivery.event_id) not in self._aside:
                with self._aside_path.open("a") as file:
                    file.write(json.dumps(told) + "\n")
        except OSError as error:
            raise StoreUnavailable(f"{self._aside_path} cannot be written ({error}): mend it") from error
        self._aside.add(int(delivery.event_id))
        self.finish([delivery])

    def backlog(self) -> int:
        """Count the unfinished lines, of a long rest those in its first 16 MiB."""
        if self._lock is None:
            self._recall()
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                return file.read(MOST_COUNTED).count(b"\n")
        except OSError:
            return 0

    def close(self) -> None:
        """Let another worker take the file."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _begin(self) -> None:
        """Lock out other workers, and find out where the last one was."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        lock = self._lock_path.open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise ClickFileTaken(
                f"another worker takes the clicks of {self._path}: stop it, or give clicks_url a Redis"
            ) from None
        self._lock = lock
        self._recall()

    def _recall(self) -> None:
        """Find out how far the file is finished."""
        try:
            kept = json.loads(self._offset_path.read_text())
            self._offset, self._n_taken, self._inode = (
                int(kept[name]) for name in ("offset", "taken", "inode")
            )
            self._head = str(kept["head"])
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError) as error:
            log.warning("%s cannot be read (%r): all lines are taken again", self._offset_path, error)

    def _read(self, n: int) -> list[tuple[int, int, str]]:
        """Give (start, end, text) of at most ``n`` whole lines from the offset on."""
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            return []
        with file:
            found = os.fstat(file.fileno())
            self._begins_with = file.read(HEAD_BYTES)
            is_same = found.st_ino == self._inode and self._head_of(self._offset) == self._head
            if self._offset and (found.st_size < self._offset or not is_same):
                log.warning("%s is another file than before, or shorter: taken from its start", self._path)
                self._offset = self._n_taken = 0
            self._inode = found.st_ino
            file.seek(self._offset)
            lines, start = [], self._offset
            while len(lines) < n and (line := file.readline()).endswith(b"\n"):
                end = start + len(line)
                lines.append((start, end, line[:LONGEST_EVENT].decode(errors="replace").rstrip("\r\n")))
                start = end
            # What was added since may be among the lines.
            file.seek(0)
            self._begins_with = file.read(HEAD_BYTES)
        return lines

    def _save(self, offset: int, n_taken: int) -> None:
        """
        Replace the offset file; no kill can damage it, and a lost one only repeats clicks.

        Where it cannot be written nothing was taken or finished: the next try counts as the first.
        """
        temporary = self._offset_path.with_name(f".{self._offset_path.name}.tmp")
        head = self._head_of(offset)
        kept = {"offset": offset, "taken": n_taken, "inode": self._inode, "head": head}
        temporary.write_text(json.dumps(kept))
        os.replace(temporary, self._offset_path)
        self._offset, self._n_taken, self._head = offset, n_taken, head

    def _head_of(self, offset: int) -> str:
        """Digest the file's first bytes, of those before the offset."""
        return hashlib.sha256(self._begins_with[:offset]).hexdigest()
