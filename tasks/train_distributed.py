"""
How does one method train on several processes? With ``torchrun``, one part of every batch each.

    torchrun --nproc-per-node 2 -m tasks.train_distributed --day 2022-05-02 --method increc

All processes read the same state folder and settings; the result is that of ``tasks.train`` up to the
rounding of sums. The first process writes the checkpoint. One that fails ends all of them, and one that hangs
does so after ``--timeout-seconds``; started again, they go on after the last whole epoch.
"""

import argparse
import json
import logging
import os
import sys
from dataclasses import asdict
from datetime import date, timedelta

import torch
import torch.distributed
from torch.distributed.elastic.multiprocessing.errors import record

from models.increc.ranks import Ranks
from models.increc.start import find_device
from tasks.settings import load_settings
from tasks.train import train

TIMEOUT_SECONDS = 1800


@record
def main(arguments: list[str] | None = None) -> int:
    """Train as one of the processes that torchrun started; give the exit code."""
    parser = argparse.ArgumentParser(
        prog="torchrun -m tasks.train_distributed", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("--day", required=True, type=date.fromisoformat, help="the checkpoint's, YYYY-MM-DD")
    parser.add_argument("--method", required=True, help="a method of the settings")
    parser.add_argument("--timeout-seconds", type=float, default=TIMEOUT_SECONDS)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if "RANK" not in os.environ:
        print("tasks.train_distributed: start it with torchrun --nproc-per-node N -m", file=sys.stderr)
        return 2
    try:
        settings = load_settings()
        is_cuda = find_device(settings.device).type == "cuda"
    except (ValueError, LookupError, OSError) as error:
        print(f"tasks.train_distributed, process {os.environ['RANK']}: {error}", file=sys.stderr)
        return 1
    if is_cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    torch.distributed.init_process_group(
        "nccl" if is_cuda else "gloo", timeout=timedelta(seconds=options.timeout_seconds)
    )
    ranks = Ranks.of_process_group()
    try:
        report = train(options.day, options.method, settings, ranks)
    except (ValueError, LookupError, OSError) as error:
        print(f"tasks.train_distributed, process {ranks.rank} of {ranks.n}: {error}", file=sys.stderr)
        return 1
    if ranks.rank == 0:
        print(json.dumps(asdict(report)))
    torch.distributed.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main())
