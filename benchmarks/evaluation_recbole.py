"""
What does RecBole's full-sort evaluation take? Runs in RecBole's own environment (`make bench-env`).

    python evaluation_recbole.py VECTORS.npz K,K,.. N_THREADS USERS_PER_BATCH

The way from scores to figures is RecBole's own: FullSortEvalDataLoader's batches, Trainer.evaluate with its
Collector (topk) and Evaluator. Only the model is ours: it scores by inner products with the given vectors.
Recall@K is its name for the mean share of a user's targets among the first K. Prints one JSON object.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from recbole.config import Config
from recbole.data.dataloader import FullSortEvalDataLoader
from recbole.data.interaction import Interaction
from recbole.trainer import Trainer


def main(vectors_file: str, ks: str, n_threads: str, users_per_batch: str) -> None:
    """Evaluate and print the figures."""
    torch.set_num_threads(int(n_threads))
    ks = [int(k) for k in ks.split(",")]
    with np.load(vectors_file) as arrays, tempfile.TemporaryDirectory() as folder:
        items = np.concatenate([np.zeros((1, arrays["items"].shape[1]), np.float32), arrays["items"]])
        model = Vectors(arrays["users"], items)
        given = {
            "topk": ks,
            "metrics": ["Recall"],
            "valid_metric": f"Recall@{ks[0]}",
            "metric_decimal_place": 12,
            "use_gpu": False,
            "checkpoint_dir": folder,
        }
        sys.argv = sys.argv[:1]  # RecBole reads it
        os.chdir(folder)  # and writes its logs where it is
        config = Config(model="BPR", dataset="vectors", config_dict=given)
        trainer = Trainer(config, model)
        batches = Batches(
            config, arrays["history"] + 1, arrays["targets"] + 1, len(items), int(users_per_batch)
        )
    before = _peak_mib()
    started, cpu = time.perf_counter(), time.process_time()
    found = trainer.evaluate(batches, load_best_model=False)
    figures = {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu}
    hits = [float(found[f"recall@{k}"]) for k in ks]
    print(json.dumps({**figures, "before_mib": before, "peak_mib": _peak_mib(), "hits": hits}))


class Vectors(torch.nn.Module):
    """A trained model of two vectors, asked as RecBole asks its matrix factorisation."""

    def __init__(self, users: np.ndarray, items: np.ndarray) -> None:
        """Hold float32 [n, d] users and [I, d] items."""
        super().__init__()
        self.users = torch.nn.Embedding.from_pretrained(torch.from_numpy(users))
        self.items = torch.nn.Embedding.from_pretrained(torch.from_numpy(items))
        self.bias = torch.nn.Parameter(torch.zeros(1))  # RecBole's trainer wants something to optimise

    def full_sort_predict(self, interaction: Interaction) -> torch.Tensor:
        """Score all items, as recbole.model.general_recommender.BPR does."""
        users = self.users(interaction["user_id"])
        return torch.matmul(users, self.items.weight.transpose(0, 1)).view(-1)


class Batches(FullSortEvalDataLoader):
    """RecBole's loader over given users, without the reading of a log."""

    def __init__(self, config, history, targets, n_items: int, users_per_batch: int) -> None:
        """Hold the rows of item ids that each user has used, and will use."""
        self.is_sequential = False
        self.uid_field, self.iid_field = "user_id", "item_id"
        self.uid2history_item = _tensors(history)
        self.uid2positive_item = _tensors(targets)
        self.user_df = Interaction({"user_id": torch.arange(len(history))})
        self.sample_size = len(history)
        self._users_per_batch = users_per_batch
        super(FullSortEvalDataLoader, self).__init__(config, _Items(n_items), None)

    def _init_batch_size_and_step(self) -> None:
        self.step = self._users_per_batch
        self.set_batch_size(self.step)


class _Items:
    """What Trainer.evaluate asks its data set for."""

    def __init__(self, n_items: int) -> None:
        self.item_num = n_items

    def get_item_feature(self) -> Interaction:
        return Interaction({"item_id": torch.arange(self.item_num)})


def _tensors(rows: np.ndarray) -> np.ndarray:
    lists = np.empty(len(rows), object)
    for place, row in enumerate(rows):
        lists[place] = torch.from_numpy(row)
    return lists


def _peak_mib() -> float:
    """Read the most that this program has held; getrusage would tell of the one that started it too."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


if __name__ == "__main__":
    main(*sys.argv[1:])
