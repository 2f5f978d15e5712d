"""
Which Spark session does a task use, if any?

``engine = "spark"`` runs the queries of ``sql/`` and the Swing index on Spark, with the same results. One
session a process, started at its first use; it ends with the process.
"""

import importlib
import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from tasks.settings import REPOSITORY
from tasks.spark_config import SparkConfig

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

JAVA = 17  # the oldest that Spark 4 runs on
LOCAL = re.compile(r"local\[(\d+)")


class SparkMissing(ValueError):
    """``engine = "spark"``, but Spark cannot start; the message says what to install."""


class EngineSettings(Protocol):
    """The settings that say where queries run."""

    engine: Literal["duckdb", "spark"]
    spark: SparkConfig


def spark_session(settings: EngineSettings) -> "SparkSession | None":
    """
    Give the process's Spark session, started if need be; None where the engine is DuckDB.

    Raises:
        SparkMissing: a package or Java is not there, or Spark does not start.
    """
    if settings.engine == "duckdb":
        return None
    require_spark(settings)
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession

    # Spark's workers run this interpreter unless told otherwise; it has no property for this that holds here
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.master(settings.spark.master).appName("tributary")
    for name, value in _properties(settings.spark).items():
        builder = builder.config(name, value)
    # the bridge to Java tells of every connection it closes, at the end even into closed streams
    logging.getLogger("py4j").setLevel(logging.WARNING)
    try:
        return builder.getOrCreate()
    except (PySparkException, Py4JError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = next((line for line in lines if "Exception: " in line), lines[0])
        raise SparkMissing(
            f'engine = "spark", but Spark does not start with master {settings.spark.master}: {reason}; check'
            ' the settings under [spark], or set engine = "duckdb"'
        ) from error


def require_spark(settings: EngineSettings) -> None:
    """
    Check that what the engine needs is installed; nothing is needed for DuckDB.

    Raises:
        SparkMissing: a package or Java is not there.
    """
    if settings.engine == "duckdb":
        return
    for package in ("pyspark", "sqlglot"):
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise SparkMissing(
                f'engine = "spark" needs the package {package}: {sys.executable} -m pip install --editable'
                ' ".[spark]", or set engine = "duckdb"'
            ) from error
    java = _java()
    if java is None or (found := _version_of(java)) is None:
        raise SparkMissing(
            f'engine = "spark" needs Java {JAVA} or newer, and there is none: apt-get install'
            f' openjdk-{JAVA}-jre-headless, or set JAVA_HOME to one, or set engine = "duckdb"'
        )
    if found < JAVA:
        raise SparkMissing(
            f'engine = "spark" needs Java {JAVA} or newer, and {java} is Java {found}: apt-get install'
            f" openjdk-{JAVA}-jre-headless, or set JAVA_HOME to one"
        )


def _java() -> str | None:
    """Find the Java that Spark's launcher would take: JAVA_HOME's, else that of the path."""
    home = os.environ.get("JAVA_HOME")
    if home:
        java = Path(home) / "bin" / "java"
        return str(java) if os.access(java, os.X_OK) else None
    return shutil.which("java")


def _version_of(java: str) -> int | None:
    """Give the major version that ``java -version`` tells; None where it does not run."""
    try:
        told = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    version = re.search(r'version "(?:1\.)?(\d+)', told.stderr + told.stdout)
    return int(version.group(1)) if version else None


def _properties(config: SparkConfig) -> dict[str, str]:
    ours = {
        "spark.driver.memory": "2g",
        "spark.driver.maxResultSize": "0",
        "spark.log.level": "FATAL",
        "spark.executorEnv.PYTHONPATH": str(REPOSITORY),
        "spark.sql.session.timeZone": "UTC",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
    }
    if local := LOCAL.match(config.master):
        # a shuffle into Spark's 200 partitions costs more than any query on one machine
        ours |= {"spark.sql.shuffle.partitions": local.group(1), "spark.driver.bindAddress": "127.0.0.1"}
        ours |= {"spark.driver.host": "127.0.0.1"}
    return ours | config.properties
