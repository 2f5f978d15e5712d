"""One process that trains what a folder holds, by itself (``-m``) or as one that torchrun starts."""

import json
import os
import signal
import sys
import time
from datetime import date, timedelta
from pathlib import Path

import torch.distributed
from pyarrow import feather

from models.increc.config import IncRecConfig
from models.increc.ranks import ALONE, Ranks
from models.increc.training import train
from tasks.training_state import TrainingState

TABLES = ("samples", "items", "users")


def main(folder: Path) -> None:
    """Train; be killed after an epoch where ``options.json`` says so; write the model and the report."""
    options = json.loads((folder / "options.json").read_text())
    ranks = ALONE
    if "RANK" in os.environ:
        torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=options.get("timeout", 60)))
        ranks = Ranks.of_process_group()
    tables = [feather.read_table(folder / f"{name}.arrow") for name in TABLES]
    if ranks.rank in options.get("other_samples_at", []):
        tables[0] = tables[0].slice(1)

    def on_epoch(epoch: int, _: dict[str, float]) -> None:
        if [ranks.rank, epoch] == options.get("kill_at"):
            os.kill(os.getpid(), signal.SIGKILL)
        if [ranks.rank, epoch] == options.get("hang_at"):
            time.sleep(600)

    config = IncRecConfig(**options["config"])
    keeper = TrainingState(folder, date(2026, 1, 1), "base") if options.get("keep") else None
    model, report = train(*tables, config, on_epoch=on_epoch, keeper=keeper, ranks=ranks)
    (folder / f"model.{ranks.rank}").write_bytes(model.to_bytes())
    (folder / f"report.{ranks.rank}").write_bytes(report.to_json())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
