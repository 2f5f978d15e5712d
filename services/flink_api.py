"""How does the streaming job stand, and how is it told to stop? Flink's REST interface."""

import time
from dataclasses import dataclass

import httpx

from services.state import ServicesError

TIMEOUT_SECONDS = 10
SAVEPOINT_SECONDS = 120
COUNTER_GROUP = ".mnr."


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
        return self.state == "RUNNING" and self.n_running == self.n_tasks > 0


class FlinkApi:
    """One cluster's REST interface."""

    def __init__(self, url: str):
        """Connect to nothing yet."""
        self.url = url

    def job(self, name: str) -> JobState | None:
        """Give the newest job of that name; None where there is none, or no answer."""
        try:
            jobs = [job for job in self._get("/jobs/overview")["jobs"] if job["name"] == name]
        except ServicesError:
            return None
        if not jobs:
            return None
        newest = max(jobs, key=lambda job: job["start-time"])
        return JobState(newest["jid"], newest["state"], newest["tasks"]["running"], newest["tasks"]["total"])

    def counters(self, job_id: str) -> dict[str, int]:
        """Give the job's own counters, added up over its tasks."""
        counters: dict[str, int] = {}
        for vertex in self._get(f"/jobs/{job_id}")["vertices"]:
            path = f"/jobs/{job_id}/vertices/{vertex['id']}/subtasks/metrics"
            names = [each["id"] for each in self._get(path) if COUNTER_GROUP in each["id"]]
            found = self._get(f"{path}?get={','.join(names)}&agg=sum") if names else []
            for each in found:
                name = each["id"].split(COUNTER_GROUP)[1]
                counters[name] = counters.get(name, 0) + round(each["sum"])
        return counters

    def watermark(self, job_id: str) -> int | None:
        """Give the time up to which events have been seen, milliseconds since 1970; None before the first."""
        marks = []
        for vertex in self._get(f"/jobs/{job_id}")["vertices"]:
            found = self._get(f"/jobs/{job_id}/vertices/{vertex['id']}/watermarks")
            marks += [int(each["value"]) for each in found if int(each["value"]) > 0]
        return min(marks) if marks else None

    def last_checkpoint(self, job_id: str) -> dict | None:
        """Give the newest completed checkpoint; None before the first."""
        return self._get(f"/jobs/{job_id}/checkpoints")["latest"]["completed"]

    def stop_with_savepoint(self, job_id: str, folder: str) -> str:
        """Stop the job after a savepoint; give where it is."""
        return self._savepoint(f"/jobs/{job_id}/stop", job_id, {"targetDirectory": folder, "drain": False})

    def savepoint(self, job_id: str, folder: str) -> str:
        """Take a savepoint of the running job; give where it is."""
        body = {"target-directory": folder, "cancel-job": False}
        return self._savepoint(f"/jobs/{job_id}/savepoints", job_id, body)

    def _savepoint(self, path: str, job_id: str, body: dict) -> str:
        trigger = self._call("POST", path, body)["request-id"]
        deadline = time.monotonic() + SAVEPOINT_SECONDS
        while time.monotonic() < deadline:
            answer = self._get(f"/jobs/{job_id}/savepoints/{trigger}")
            if answer["status"]["id"] == "COMPLETED":
                if "location" in answer["operation"]:
                    return answer["operation"]["location"]
                cause = answer["operation"]["failure-cause"]["stack-trace"].splitlines()[0]
                raise ServicesError(f"Flink could not take a savepoint: {cause}")
            time.sleep(0.2)
        raise ServicesError(f"Flink took no savepoint within {SAVEPOINT_SECONDS} s; look at {self.url}")

    def _get(self, path: str) -> dict | list:
        return self._call("GET", path)

    def _call(self, method: str, path: str, body: dict | None = None) -> dict | list:
        try:
            answer = httpx.request(
                method, self.url + path, json=body, timeout=TIMEOUT_SECONDS, trust_env=False
            )
            answer.raise_for_status()
            return answer.json()
        except (httpx.HTTPError, ValueError) as error:
            raise ServicesError(f"Flink at {self.url} does not answer {path}: {error}") from error
