"""Where do the services of a state folder keep their files?"""

import hashlib
import os
import re
import signal
from contextlib import contextmanager
from dataclasses import dataclass
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from typing import ClassVar

LONGEST_SOCKET = 95  # bytes: 108 of the kernel, less what supervisor appends while it makes the socket
UNSAFE = re.compile(
    r"[^\w./ +,:=@~-]"
)  # what shells, PostgreSQL, Redis and supervisor read in their own ways


class ServicesError(RuntimeError):
    """The services cannot be started or stopped; the message is one line: what, where, what to do."""


@dataclass(frozen=True)
class State:
    """The files of the services of one state folder (``var``, absolute)."""

    var: Path
    commands: ClassVar[str] = "`make up` or `make down`"
    """What starts and stops them, one at a time."""

    @property
    def name(self) -> str:
        """Name this state folder among all, in letters that a folder and a database may have."""
        digest = hashlib.sha256(str(self.var).encode()).hexdigest()[:8]
        return f"{re.sub(r'[^A-Za-z0-9_.-]', '_', self.var.name)}-{digest}"

    @property
    def database_prefix(self) -> str:
        """First part of the names of its databases in a PostgreSQL, and keys in a Redis, that others use."""
        stem, _, digest = self.name.rpartition("-")
        return f"tributary_{re.sub('[^a-z0-9]', '_', stem.lower())[:30]}_{digest}"

    @property
    def folder(self) -> Path:
        """The services' part of the state folder."""
        return self.var / "services"

    @property
    def logs(self) -> Path:
        """One log per process."""
        return self.folder / "logs"

    @property
    def scripts(self) -> Path:
        """One start script per process."""
        return self.folder / "run"

    @property
    def environment_file(self) -> Path:
        """What a command on this state folder sources to talk to its services; no secrets."""
        return self.folder / "environment.sh"

    @property
    def supervisor_file(self) -> Path:
        """The configuration of supervisord."""
        return self.folder / "supervisord.conf"

    @property
    def socket(self) -> Path:
        """The socket that supervisord listens on."""
        return self.folder / "supervisor.sock"

    @property
    def airflow_home(self) -> Path:
        """Airflow's home: its task logs are in there."""
        return self.folder / "airflow"

    @property
    def secrets_file(self) -> Path:
        """Passwords and keys, outside the repository and the state folder."""
        config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
        return config / "tributary" / self.name / "secrets.env"

    def refuse_unfit(self) -> None:
        """
        Refuse a path that cannot hold services.

        Raises:
            ServicesError: it is too long for a socket or has odd letters.
        """
        if found := UNSAFE.search(str(self.var)):
            raise ServicesError(f"{self.var} has {found[0]!r} in it; choose a VAR without it")
        if len(os.fsencode(self.socket)) > LONGEST_SOCKET:
            raise ServicesError(f"{self.socket} is too long a path for a socket; choose a shorter VAR")

    def make_folders(self) -> None:
        """
        Make the folders; others may pass through (PostgreSQL may run as another user) but not look.

        Raises:
            ServicesError: the path cannot hold services, or a folder cannot be made.
        """
        self.refuse_unfit()
        try:
            self.var.mkdir(parents=True, exist_ok=True)
            self.folder.mkdir(exist_ok=True)
            self.folder.chmod(0o711)
            for private in (self.logs, self.scripts, self.airflow_home, self.folder / "mlflow"):
                private.mkdir(exist_ok=True)
                private.chmod(0o700)
        except OSError as error:
            raise ServicesError(f"cannot make the folders of the services: {error}") from error

    @contextmanager
    def lock(self):
        """
        Be the only one of ``commands`` at work on this state folder.

        Raises:
            ServicesError: another one is at work.
        """
        with (self.folder / "lock").open("w") as file:
            try:
                flock(file, LOCK_EX | LOCK_NB)
            except OSError:
                raise ServicesError(
                    f"another {self.commands} is at work on {self.var}; wait for it"
                ) from None
            yield


def write_private(path: Path, text: str) -> None:
    """Replace a file that only its owner may read, in one step."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    new.replace(path)


def stop_on_terminate() -> None:
    """Let SIGTERM end the command as Ctrl-C does, so that it puts away what it started."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
