"""
What does ``make nearline`` run? A click worker in the foreground, until it is told to stop (Ctrl-C, SIGTERM).

    python -m services.click_worker [--name NAME]       answer clicks
    python -m services.click_worker --healthy [--name]  exit 0 where that worker told of itself lately

With clicks in Redis any number of workers may run. The exit code is 0 when it was told to stop, 130 when that
was before it began, else 1.
"""

import argparse
import logging
import os
import re
import signal
import socket
import sys
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

# The rest is imported where it is used: seconds, in which Ctrl-C would be a traceback.
if TYPE_CHECKING:
    from tasks.settings import Settings

SILENT_SECONDS = 30.0


def main(arguments: list[str] | None = None) -> int:
    """Run the command; give the exit code."""
    parser = argparse.ArgumentParser(prog="python -m services.click_worker", description=__doc__)
    parser.add_argument("--name", help="this worker's own name; default: host and process")
    parser.add_argument("--healthy", action="store_true", help="ask whether the worker of that name is well")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        from nearline.candidates import LIST_NAME
        from tasks.settings import load_settings

        name = options.name or re.sub(r"[^A-Za-z0-9@._-]", "-", f"{socket.gethostname()}-{os.getpid()}")
        if not LIST_NAME.fullmatch(name):
            raise ValueError(f"{name!r} cannot name a worker: letters, digits, '@', '.', '_' and '-' only")
        settings = load_settings()
        if options.healthy:
            return 0 if is_healthy(settings, name) else 1
        run_worker(settings, name)
    except (ValueError, LookupError, OSError) as error:
        print(f"nearline: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("nearline: interrupted before it began; no click was taken", file=sys.stderr)
        return 130
    return 0


def run_worker(settings: "Settings", name: str) -> None:
    """
    Answer clicks until a signal says stop.

    Raises:
        NothingServed, ReleaseCorrupt, LookupError: there is no release to score with.
        UnknownSource, UnknownStore: a setting names none.
        StoreUnavailable: store or stream does not answer.
    """
    import torch

    from nearline.click_metrics import ClickMetrics
    from nearline.click_source import open_click_source
    from nearline.click_worker import ClickWorker
    from nearline.served_scorer import ServedScorer
    from nearline.store import open_store

    config = settings.nearline
    torch.set_num_threads(1)  # Scoring brings its own threads.
    metrics = ClickMetrics(metrics_folder(settings), name)
    with ExitStack() as stack:
        scorers = stack.enter_context(
            closing(ServedScorer(settings.release_root, metrics.count, config.n_threads))
        )
        store = stack.enter_context(closing(open_store(settings.online_store_url)))
        source = stack.enter_context(
            closing(
                open_click_source(
                    settings.clicks_url, worker=name, claim_after_seconds=config.claim_after_seconds
                )
            )
        )
        worker = ClickWorker(source, store, scorers, config, metrics)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: worker.stop())
        try:
            worker.run()
        except BaseException:
            metrics.write("failed")
            raise


def is_healthy(settings: "Settings", name: str) -> bool:
    """Tell whether the worker of that name is at work and told so lately."""
    from nearline.click_metrics import read_statuses

    return any(
        status.worker == name
        and status.state == "running"
        and time.time() - status.written_at < SILENT_SECONDS
        for status in read_statuses(metrics_folder(settings))
    )


def metrics_folder(settings: "Settings") -> Path:
    """Give the folder of the workers' metrics."""
    return settings.var / "nearline" / "workers"


if __name__ == "__main__":
    sys.exit(main())
