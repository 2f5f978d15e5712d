"""What is known of one state folder's streaming job: files, address, what it was told, how it stands."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

from pydantic import ValidationError

from nearline.flink_api import FlinkApi, FlinkAway, JobState
from nearline.mnr_config import JobConfig
from nearline.mnr_process import Cluster
from services.ports import read_ports
from services.state import ServicesError, State
from services.supervisor import Supervisor

JOB_NAME = "mnr"


@dataclass(frozen=True)
class MNRState(State):
    """The files of one state folder's streaming job."""

    commands: ClassVar[str] = "`make mnr` or `make mnr-stop`"

    @property
    def folder(self) -> Path:
        """The job's part of the state folder."""
        return self.var / "mnr"

    @property
    def cluster(self) -> Cluster:
        """Flink's files."""
        return Cluster(self.folder)

    def make_folders(self, lines: Path | None) -> None:
        """
        Make the folder, that of the logs, and that of the lines if they are read.

        Raises:
            ServicesError: the path cannot hold services, or a folder cannot be made.
        """
        self.refuse_unfit()
        try:
            self.logs.mkdir(parents=True, exist_ok=True)
            self.folder.chmod(0o711)  # who sends lines passes through
            if lines is not None:
                lines.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ServicesError(f"cannot make the folders of the streaming job: {error}") from error

    def is_up(self) -> bool:
        """Tell whether processes of this folder run: another folder's cluster may have the port since."""
        supervisor = Supervisor(self)
        return supervisor.is_up() or supervisor.session() is not None

    def api(self) -> FlinkApi:
        """
        Give Flink's REST interface.

        Raises:
            ServicesError: no cluster was ever started, or nobody knows its port.
        """
        path = self.folder / "ports.json"
        port = read_ports(path).get("mnr")
        if port is None and path.exists():
            raise ServicesError(f"{path} is damaged: `make mnr-stop FORCE=1`, then `make mnr` writes it anew")
        if port is None:
            raise ServicesError(f"no streaming job was started for {self.var}; `make mnr` starts it")
        return FlinkApi(f"http://127.0.0.1:{port}")

    def job(self) -> JobState | None:
        """Give the newest job; None where there is none, or no answer."""
        api = self.api()
        try:
            return next(iter(api.jobs(JOB_NAME)), None) if self.is_up() else None
        except FlinkAway:
            return None

    def told(self) -> JobConfig:
        """
        Give what the job was told.

        Raises:
            ServicesError: its file is not there, damaged, or of another version.
        """
        path = self.cluster.job_file
        try:
            return JobConfig.model_validate_json(path.read_bytes())
        except OSError as error:
            reason = f"cannot be read ({error.strerror})"
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            reason = f"is damaged or of another version ({where}{': ' if where else ''}{first['msg']})"
        raise ServicesError(f"{path} {reason}: `make mnr-stop`, then `make mnr` writes it anew")

    def going_on(self) -> str:
        """Say where the job's next start goes on from."""
        newest = self.cluster.newest_state()
        if newest is None:
            return f"the beginning of its source, with empty queues: {self.folder} has no checkpoint"
        return f"{newest} of {age(round(1000 * (newest / '_metadata').stat().st_mtime))}"


def age(milliseconds: int | None) -> str:
    """Write a time, milliseconds since 1970, and how long ago it was."""
    if not milliseconds:
        return "none yet"
    time_of = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return f"{time_of:%Y-%m-%d %H:%M:%S} UTC, {(datetime.now(UTC) - time_of).total_seconds():,.0f} s ago"
