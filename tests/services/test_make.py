"""The commands of the Makefile take what a person types letter by letter, and work on any state folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

STAMPS = ["-o", ".venv/run", "-o", ".venv/deploy", "-o", ".venv/dev"]


def make(target: str, var: Path, **given: str) -> subprocess.CompletedProcess:
    """Run `make <target> VAR=... NAME=...` with the interpreter of the tests."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("TRIBUTARY_", "MAKE"))}
    words = [f"{name}={value}" for name, value in ({"VAR": str(var)} | given).items()]
    return subprocess.run(
        ["make", "--no-print-directory", *STAMPS, f"BIN={Path(sys.executable).parent}", target, *words],
        cwd=REPOSITORY,
        env=clean,
        capture_output=True,
        text=True,
        check=False,
    )


def told(done: subprocess.CompletedProcess) -> str:
    """Give the one line that a failed command wrote, beside make's own."""
    lines = [line for line in done.stderr.splitlines() if not line.startswith("make: ***")]
    assert len(lines) == 1, done.stderr
    return lines[0]


@pytest.mark.parametrize(
    ("target", "names"),
    [
        ("approve", ["VERSION", "REASON", "FORCE"]),
        ("rollback", ["VERSION", "REASON"]),
        ("backfill", ["REPROCESS"]),
        ("summary", ["K"]),
        ("nearline", ["NAME"]),
        ("replay-clicks", ["DAY", "RATE", "CLICKS"]),
        ("compare", ["METHODS", "BACKBONES", "SEEDS", "K", "LAST", "EVALUATED", "FROM", "TO"]),
    ],
)
def test_nothing_in_what_is_given_is_run(tmp_path: Path, target: str, names: list[str]) -> None:
    pwned = tmp_path / "pwned"
    text = (
        f"""he said "ok"; it's $(touch {pwned}) `touch {pwned}` $(shell touch {pwned}) "; touch {pwned}; " """
    )
    days = {"FROM": "2026-01-01", "TO": "2026-01-02"} if target == "backfill" else {}
    done = make(target, tmp_path / "var", **days, **dict.fromkeys(names, text))
    assert done.returncode != 0
    assert target == "summary" or told(done).startswith((f"{target}: ", f"make {target}: "))
    assert not pwned.exists()


def test_what_is_given_arrives_letter_by_letter(tmp_path: Path) -> None:
    day = """$HOME `id` "a" 'b' $(VAR) \\n #c"""
    assert told(make("backfill", tmp_path / "var", FROM=day, TO="2026-01-02")) == (
        f"make backfill: FROM={day} is not a day; write YYYY-MM-DD"
    )


def test_a_state_folder_may_have_a_space_and_a_quote_and_its_services_are_found(tmp_path: Path) -> None:
    var = tmp_path / """my "var" and 'more' $x"""
    done = make("status", var)
    assert f"no day has been run yet below {var}/lakehouse" in " ".join(done.stdout.split())
    (var / "services").mkdir(parents=True)
    (var / "services" / "environment.sh").write_text(
        "export TRIBUTARY_SERVICES__AIRFLOW_URL=http://127.0.0.1:1\n"
        "export AIRFLOW_ADMIN_USERNAME=admin AIRFLOW_ADMIN_PASSWORD=secret\n"
    )
    assert "Airflow does not answer at http://127.0.0.1:1" in " ".join(make("status", var).stdout.split())


def test_without_its_services_environment_no_command_runs(tmp_path: Path) -> None:
    (tmp_path / "services").mkdir()
    (tmp_path / "services" / "environment.sh").write_text("echo no passwords >&2; return 1\n")
    done = make("publish", tmp_path)
    assert done.returncode != 0
    assert told(done) == "no passwords"
