"""
What does flink-ml's Swing take on the same clicks, in one Java process?

    python -m benchmarks.swing_flink JARS CLICKS.npz T N_THREADS [ROWS.npz]

JARS is a folder with the jars of the PyPI packages apache-flink-ml 2.3.0 and apache-flink-libraries 1.17.2
(their ``deps/lib``); a Java 17 compiler is needed. Prints one JSON object. Its time holds the job from its
start to its last row, with Flink's own start inside the process, not the compiling.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

PROGRAM = Path(__file__).resolve().parent / "flink" / "SwingRun.java"
OPENED = ("java.lang", "java.lang.reflect", "java.net", "java.nio", "java.time", "java.util")


def main(jars: str, clicks_file: str, truncation: str, n_threads: str, rows_file: str = "") -> None:
    """Compile, run, print the figures, and keep the scores where a file is named."""
    classpath = ":".join(map(str, sorted(Path(jars).rglob("*.jar"))))
    if not classpath:
        sys.exit(f"no jars in {jars}")
    opened = [option for name in OPENED for option in ("--add-opens", f"java.base/{name}=ALL-UNNAMED")]
    with tempfile.TemporaryDirectory(prefix="tributary-flink-") as folder:
        with np.load(clicks_file) as arrays:
            clicks = np.stack((arrays["user"], arrays["item"]), axis=1)
        np.savetxt(f"{folder}/clicks.csv", clicks, fmt="%d", delimiter=",")
        subprocess.run(["javac", "-cp", classpath, "-d", folder, str(PROGRAM)], check=True)
        command = ["java", "-Xmx6g", *opened, "-cp", f"{folder}:{classpath}", "SwingRun"]
        files = (f"{folder}/clicks.csv", f"{folder}/rows.txt")
        done = subprocess.run(
            [*command, files[0], truncation, n_threads, files[1]], capture_output=True, text=True, check=False
        )
        if done.returncode:
            sys.exit(done.stderr[-2000:])
        rows = _read_rows(Path(files[1]))
    if rows_file:
        np.savez(rows_file, **rows)
    print(json.dumps({**json.loads(done.stdout.splitlines()[-1]), "n_rows": len(rows["score"])}))


def _read_rows(file: Path) -> dict[str, np.ndarray]:
    """Read "trigger target,score;target,score;..." lines."""
    triggers, pairs = [], []
    for line in file.read_text().splitlines():
        trigger, _, targets = line.partition(" ")
        values = np.array(targets.replace(";", ",").rstrip(",").split(","), np.float64).reshape(-1, 2)
        triggers.append(np.full(len(values), int(trigger)))
        pairs.append(values)
    values = np.concatenate(pairs)
    return {
        "trigger": np.concatenate(triggers),
        "target": values[:, 0].astype(np.int32),
        "score": values[:, 1],
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
