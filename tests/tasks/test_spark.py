"""Spark is asked for where it is not installed: one line says what to install."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from pydantic import ValidationError

from tasks.settings import REPOSITORY
from tasks.spark import SparkMissing, require_spark, spark_session
from tasks.spark_config import SparkConfig

SETTINGS = SimpleNamespace(engine="spark", spark=SparkConfig())
RUN = "import sys; {before}from tasks.run import main; sys.exit(main([]))"


def run(tmp_path: Path, before: str = "", **environment: str) -> subprocess.CompletedProcess:
    """Run the command of `make run` with engine = "spark"."""
    common = {name: value for name, value in os.environ.items() if name not in ("JAVA_HOME", "PATH")}
    common |= {"PYTHONPATH": str(REPOSITORY), "PATH": str(tmp_path), "TRIBUTARY_ENGINE": "spark"}
    common |= {"TRIBUTARY_VAR": str(tmp_path / "var")}
    command = [sys.executable, "-c", RUN.format(before=before)]
    return subprocess.run(
        command, env=common | environment, capture_output=True, text=True, timeout=120, check=False
    )


def assert_one_line(ended: subprocess.CompletedProcess, *parts: str) -> None:
    (line,) = ended.stderr.splitlines()
    assert ended.returncode == 1
    assert line.startswith('make run: engine = "spark" needs ')
    for part in parts:
        assert part in line


def fake_java(folder: Path, script: str) -> Path:
    (folder / "bin").mkdir(parents=True)
    java = folder / "bin" / "java"
    java.write_text(f"#!/bin/sh\n{script}\n")
    java.chmod(0o755)
    return java


def test_without_java_one_line_says_what_to_install(tmp_path: Path) -> None:
    ended = run(tmp_path)
    assert_one_line(ended, "Java 17 or newer, and there is none", "openjdk-17-jre-headless", "JAVA_HOME")


def test_java_home_without_java_is_no_java(tmp_path: Path) -> None:
    assert_one_line(run(tmp_path, JAVA_HOME=str(tmp_path)), "and there is none")


def test_java_that_does_not_run_is_no_java(tmp_path: Path) -> None:
    java = fake_java(tmp_path / "broken", "exit 1")
    assert_one_line(run(tmp_path, PATH=str(java.parent)), "and there is none")


def test_old_java_is_named(tmp_path: Path) -> None:
    java = fake_java(tmp_path / "old", """echo 'openjdk version "1.8.0_292"' >&2""")
    assert_one_line(run(tmp_path, JAVA_HOME=str(java.parent.parent)), f"{java} is Java 8")


@pytest.mark.parametrize("package", ["pyspark", "sqlglot"])
def test_without_a_package_one_line_says_what_to_install(tmp_path: Path, package: str) -> None:
    ended = run(tmp_path, before=f"sys.modules['{package}'] = None; ")
    assert_one_line(ended, f"the package {package}", 'pip install --editable ".[spark]"')


def test_duckdb_needs_neither(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "pyspark", None)
    settings = SimpleNamespace(engine="duckdb", spark=SparkConfig())
    require_spark(settings)
    assert spark_session(settings) is None


def test_master_that_is_none_is_told(tmp_path: Path) -> None:
    program = (
        "from types import SimpleNamespace; from tasks.spark import SparkMissing, spark_session;"
        "from tasks.spark_config import SparkConfig\n"
        "try: spark_session(SimpleNamespace(engine='spark', spark=SparkConfig(master='spark://nowhere')))\n"
        "except SparkMissing as error: print(error)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
    )
    (line,) = ended.stdout.splitlines()
    assert "does not start with master spark://nowhere" in line
    assert "check the settings under [spark]" in line


@pytest.mark.parametrize("master", ["nonsense", "local[0]", "local[x]", "local[", "spark://"])
def test_master_that_cannot_be_is_refused_with_the_settings(master: str) -> None:
    with pytest.raises(ValidationError, match="master"):
        SparkConfig(master=master)


def test_missing_spark_is_a_mistake_of_the_settings() -> None:
    assert issubclass(SparkMissing, ValueError)


def test_checks_of_data_still_run_in_a_process_of_their_own() -> None:
    """Great Expectations finds pyspark and imports Spark Connect, which can end such a process with 0."""
    program = "import tasks.validate; print('validates')"
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert ended.stdout.split() == ["validates"]
