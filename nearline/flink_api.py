"""How does a streaming job stand, and how is it told to stop? Flink's REST interface."""

import time
from dataclasses import dataclass

import httpx

TIMEOUT_SECONDS = 10.0
SAVEPOINT_SECONDS = 120
COUNTER_GROUP = ".mnr."
"""What the ids of the job's own counters hold, whatever the job is called."""
RUNNING, FINISHED = "RUNNING", "FINISHED"


class FlinkAway(ConnectionError):
    """The cluster does not answer; the message names it and what it was asked."""


class NoSavepoint(RuntimeError):
    """Flink could not take a savepoint; the message has its reason."""


@dataclass(frozen=True)
class JobState:
    """The job as Flink has it."""

    job_id: str
    state: str
    n_running: int
    n_tasks: int

    @property
    def is_running(self) -> bool:
        """Tell whether every task of it runs."""
        return self.state == RUNNING and self.n_running == self.n_tasks > 0


class FlinkApi:
    """
    One cluster's REST interface; every method raises ``FlinkAway`` where it does not answer.

    ``jobs``, which gives the ids that the others take, does so for another server's answer, too.
    """

    def __init__(self, url: str, timeout_seconds: float = TIMEOUT_SECONDS):
        """Connect to nothing yet."""
        self.url = url.rstrip("/")
        self._timeout = timeout_seconds

    def jobs(self, name: str) -> list[JobState]:
        """Give the jobs of that name, the newest first; an address that is not Flink's is told here."""
        path = "/jobs/overview"
        answer = self._get(path)
        try:
            found = [job for job in answer["jobs"] if job["name"] == name]
            found.sort(key=lambda job: job["start-time"], reverse=True)
            return [
                JobState(job["jid"], job["state"], job["tasks"]["running"], job["tasks"]["total"])
                for job in found
            ]
        except (LookupError, TypeError) as error:
            raise FlinkAway(f"{self.url} does not answer {path} as a Flink cluster does") from error

    def uptime_seconds(self, job_id: str) -> float:
        """Tell how long ago the job began."""
        return self._get(f"/jobs/{job_id}")["duration"] / 1000

    def n_restarts(self, job_id: str) -> int | None:
        """Count how often the job was restarted; None while Flink does not tell."""
        found = self._get(f"/jobs/{job_id}/metrics?get=numRestarts")
        return int(float(found[0]["value"])) if found else None

    def counters(self, job_id: str) -> dict[str, int]:
        """Give the job's own counters, added up over its tasks."""
        counters: dict[str, int] = {}
        for path in self._vertices(job_id):
            names = [each["id"] for each in self._get(f"{path}/subtasks/metrics")]
            own = ",".join(name for name in names if COUNTER_GROUP in name)
            for each in self._get(f"{path}/subtasks/metrics?get={own}&agg=sum") if own else []:
                name = each["id"].rpartition(".")[2]
                counters[name] = counters.get(name, 0) + round(each["sum"])
        return counters

    def watermark(self, job_id: str) -> int | None:
        """Give the time up to which events have been seen, milliseconds since 1970; None before the first."""
        marks = [
            int(each["value"]) for path in self._vertices(job_id) for each in self._get(f"{path}/watermarks")
        ]
        return min((mark for mark in marks if mark > 0), default=None)

    def last_checkpoint(self, job_id: str) -> int | None:
        """Tell when the newest checkpoint was completed, milliseconds since 1970; None before the first."""
        newest = (self._get(f"/jobs/{job_id}/checkpoints").get("latest") or {}).get("completed")
        return newest and newest["latest_ack_timestamp"]

    def n_failed_checkpoints(self, job_id: str) -> int:
        """Count the checkpoints that failed."""
        return self._get(f"/jobs/{job_id}/checkpoints").get("counts", {}).get("failed", 0)

    def stop_with_savepoint(self, job_id: str, folder: str) -> str:
        """
        Stop the job after a savepoint; give where it is.

        Raises:
            NoSavepoint: it could not be taken; the job goes on.
        """
        return self._savepoint(f"/jobs/{job_id}/stop", job_id, {"targetDirectory": folder, "drain": False})

    def savepoint(self, job_id: str, folder: str) -> str:
        """
        Take a savepoint of the running job; give where it is.

        Raises:
            NoSavepoint: it could not be taken.
        """
        body = {"target-directory": folder, "cancel-job": False}
        return self._savepoint(f"/jobs/{job_id}/savepoints", job_id, body)

    def _vertices(self, job_id: str) -> list[str]:
        return [f"/jobs/{job_id}/vertices/{each['id']}" for each in self._get(f"/jobs/{job_id}")["vertices"]]

    def _savepoint(self, path: str, job_id: str, body: dict) -> str:
        trigger = self._call("POST", path, body)["request-id"]
        deadline = time.monotonic() + SAVEPOINT_SECONDS
        while time.monotonic() < deadline:
            answer = self._get(f"/jobs/{job_id}/savepoints/{trigger}")
            if answer["status"]["id"] == "COMPLETED":
                if "location" in answer["operation"]:
                    return answer["operation"]["location"]
                raise NoSavepoint(_deepest(answer["operation"]["failure-cause"]["stack-trace"]))
            time.sleep(0.2)
        raise NoSavepoint(f"it was not done within {SAVEPOINT_SECONDS} s")

    def _get(self, path: str) -> dict | list:
        return self._call("GET", path)

    def _call(self, method: str, path: str, body: dict | None = None) -> dict | list:
        try:
            answer = httpx.request(method, self.url + path, json=body, timeout=self._timeout, trust_env=False)
            answer.raise_for_status()
            return answer.json()
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise FlinkAway(f"the Flink cluster {self.url} does not answer {path} ({reason})") from error


def _deepest(stack_trace: str) -> str:
    """Give the innermost cause that a Java stack trace names."""
    lines = stack_trace.splitlines()
    causes = [line for line in lines if line.startswith("Caused by: ")]
    return (causes[-1].removeprefix("Caused by: ") if causes else lines[0]).strip()
