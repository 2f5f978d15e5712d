"""
What does a running Airflow say and do? A small client of its REST API.

It logs in by user name and password (FAB auth manager), again when its token ran out. Every failure is one
line: `AirflowUnavailable` when there is no answer, which a retry may mend; `AirflowRefused` when it says no.
"""

import os
from datetime import date, datetime, time, timedelta
from typing import Any, Self
from urllib.parse import quote
from zoneinfo import ZoneInfo

import httpx

from tasks.settings import Settings

TIMEOUT_SECONDS = 30.0
PAGE = 100
NEAR_MIDNIGHT = timedelta(hours=6)


class AirflowUnavailable(ConnectionError):
    """Airflow's API does not answer; the message names its address."""


class AirflowRefused(ValueError):
    """Airflow's API refused a request; the message tells what, and the reason it gave."""

    def __init__(self, status: int, message: str):
        """Keep the HTTP status beside the message."""
        super().__init__(message)
        self.status = status


class AirflowApi:
    """
    A session with Airflow's API at ``url``; times are ISO strings with their zone, as the API gives them.

    Every method raises AirflowUnavailable and AirflowRefused.
    """

    def __init__(self, url: str, username: str, password: str, *, timeout_seconds: float = TIMEOUT_SECONDS):
        """Open the session; nothing is sent before the first request."""
        self.url = url.rstrip("/")
        self._credentials = {"username": username, "password": password}
        self._client = httpx.Client(base_url=self.url, timeout=timeout_seconds, trust_env=False)

    def __enter__(self) -> Self:
        """Use the session in a ``with`` block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def get(self, path: str, **params: Any) -> Any:
        """GET ``/api/v2/<path>`` and give the JSON answer."""
        return self._call("GET", path, params=params)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """POST to ``/api/v2/<path>`` and give the JSON answer."""
        return self._call("POST", path, json=body)

    def patch(self, path: str, body: dict[str, Any]) -> Any:
        """PATCH ``/api/v2/<path>`` and give the JSON answer."""
        return self._call("PATCH", path, json=body)

    def put(self, path: str) -> Any:
        """PUT ``/api/v2/<path>`` and give the JSON answer."""
        return self._call("PUT", path)

    def trigger_dag(self, dag_id: str, conf: dict[str, Any] | None = None) -> str:
        """Start a manual run with these parameters; give its run id."""
        body = {"logical_date": None, "conf": conf or {}}
        return self.post(f"dags/{dag_id}/dagRuns", body)["dag_run_id"]

    def dag_run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """Give one run."""
        return self.get(f"dags/{dag_id}/dagRuns/{_quote(run_id)}")

    def dag_runs(self, dag_id: str, limit: int = 100, **filters: Any) -> list[dict[str, Any]]:
        """List the newest runs, latest first; ``filters`` are the API's, e.g. ``logical_date_gte``."""
        answer = self.get(f"dags/{dag_id}/dagRuns", **{"limit": limit, "order_by": "-run_after", **filters})
        return answer["dag_runs"]

    def dag_runs_between(self, dag_id: str, first: str, last: str) -> list[dict[str, Any]]:
        """List all runs whose logical date is in the interval, both ends included, oldest first."""
        found: list[dict[str, Any]] = []
        while True:
            page = self.dag_runs(
                dag_id,
                limit=PAGE,
                offset=len(found),
                order_by="logical_date",
                logical_date_gte=first,
                logical_date_lte=last,
            )
            found += page
            if len(page) < PAGE:
                return found

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """List the task instances of a run."""
        path = f"dags/{dag_id}/dagRuns/{_quote(run_id)}/taskInstances"
        return self.get(path, limit=PAGE)["task_instances"]

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str, map_index: int = -1) -> Any | None:
        """Give the value that a task instance pushed under a key; None where it pushed none."""
        path = f"dags/{dag_id}/dagRuns/{_quote(run_id)}/taskInstances/{task_id}/xcomEntries/{key}"
        try:
            return self.get(path, map_index=map_index, deserialize=True)["value"]
        except AirflowRefused as error:
            if error.status == httpx.codes.NOT_FOUND:
                return None
            raise

    def is_paused(self, dag_id: str) -> bool:
        """Tell whether the DAG is paused."""
        return self.get(f"dags/{dag_id}")["is_paused"]

    def set_paused(self, dag_id: str, is_paused: bool) -> None:
        """Pause the DAG, or let it run."""
        self.patch(f"dags/{dag_id}", {"is_paused": is_paused})

    def backfills(self, dag_id: str) -> list[dict[str, Any]]:
        """List the DAG's backfills, newest first; one that goes on has no ``completed_at``."""
        return self.get("backfills", dag_id=dag_id, order_by="-id", limit=100)["backfills"]

    def backfill(self, backfill_id: int) -> dict[str, Any]:
        """Give one backfill."""
        return self.get(f"backfills/{backfill_id}")

    def start_backfill(self, body: dict[str, Any]) -> int:
        """Start a backfill (fields as in the API's reference); give its id."""
        return self.post("backfills", body)["id"]

    def dry_run_backfill(self, body: dict[str, Any]) -> list[datetime]:
        """Give the logical dates for which a backfill with this body would start a run."""
        found = self.post("backfills/dry_run", body)["backfills"]
        return sorted(datetime.fromisoformat(each["logical_date"]) for each in found)

    def _call(self, method: str, path: str, **options: Any) -> Any:
        if "Authorization" not in self._client.headers:
            self._log_in()
        answer = self._send(method, f"/api/v2/{path}", **options)
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            self._log_in()
            answer = self._send(method, f"/api/v2/{path}", **options)
        return _content(answer, f"{method} {path}")

    def _log_in(self) -> None:
        answer = self._send("POST", "/auth/token", json=self._credentials)
        if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise AirflowRefused(
                answer.status_code,
                f"Airflow at {self.url} does not know user {self._credentials['username']!r} with this"
                " password; check AIRFLOW_ADMIN_USERNAME and AIRFLOW_ADMIN_PASSWORD",
            )
        self._client.headers["Authorization"] = f"Bearer {_content(answer, 'login')['access_token']}"

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            answer = self._client.request(method, path, **options)
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise AirflowUnavailable(
                f"Airflow does not answer at {self.url}: {reason}; is it running (make up, make status)?"
            ) from error
        if answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
            raise AirflowUnavailable(
                f"Airflow at {self.url} answered {answer.status_code} to {method} {path}: {_detail(answer)};"
                " see the log of its api-server"
            )
        return answer


def open_airflow(settings: Settings) -> AirflowApi:
    """
    Open the Airflow that the settings name, as the user of the environment.

    Raises:
        AirflowUnavailable: the settings name none, or the environment holds no user.
    """
    url = settings.services.airflow_url
    if not url:
        raise AirflowUnavailable(
            f"no Airflow server belongs to the state folder {settings.var}; start one with `make up VAR=...`,"
            " or set TRIBUTARY_SERVICES__AIRFLOW_URL"
        )
    names = ("AIRFLOW_ADMIN_USERNAME", "AIRFLOW_ADMIN_PASSWORD")
    if missing := [name for name in names if not os.environ.get(name)]:
        raise AirflowUnavailable(f"cannot log in to Airflow at {url}: set {' and '.join(missing)}")
    return AirflowApi(url, *(os.environ[name] for name in names))


def span_of_days(days: list[date], timezone: str) -> tuple[str, str]:
    """
    Give the times between which the runs of exactly these days lie, first to last, as the API takes them.

    Not from midnight to midnight: where the clocks change at midnight there are two of them or none, and
    Airflow leaves a run out whose time it cannot reach from the next one.
    """
    first, last = (datetime.combine(day, time(), ZoneInfo(timezone)) for day in (days[0], days[-1]))
    return (first - NEAR_MIDNIGHT).isoformat(), (last + NEAR_MIDNIGHT).isoformat()


def day_of(run: dict[str, Any], timezone: str) -> date | None:
    """Tell which day a run of ``daily_cycle`` is about, as ``dags.steps`` does; None if it does not say."""
    if given := (run.get("conf") or {}).get("day"):
        return date.fromisoformat(given)
    instant = run["data_interval_start"] if run["run_type"] != "manual" else run["logical_date"]
    if instant is None:
        return None
    return datetime.fromisoformat(instant).astimezone(ZoneInfo(timezone)).date()


def seconds_of(run: dict[str, Any]) -> timedelta | None:
    """Give how long a run took; None while it has not ended."""
    if run["start_date"] is None or run["end_date"] is None:
        return None
    return datetime.fromisoformat(run["end_date"]) - datetime.fromisoformat(run["start_date"])


def _content(answer: httpx.Response, what: str) -> Any:
    if answer.is_error:
        raise AirflowRefused(answer.status_code, f"Airflow refused {what}: {_detail(answer)}")
    try:
        return answer.json() if answer.content else None
    except ValueError as error:
        raise AirflowRefused(
            answer.status_code, f"{answer.url} is no Airflow API: {what} gave no JSON; check the address"
        ) from error


def _detail(answer: httpx.Response) -> str:
    """Give the reason that the API gave, on one line."""
    try:
        detail = answer.json().get("detail", answer.text)
    except (ValueError, AttributeError):
        detail = answer.reason_phrase
    if isinstance(detail, list):
        detail = "; ".join(str(each.get("msg", each)) for each in detail if isinstance(each, dict)) or detail
    if isinstance(detail, dict):
        detail = detail.get("message") or detail
    return " ".join(str(detail).split()) or str(answer.status_code)


def _quote(run_id: str) -> str:
    return quote(run_id, safe="")
