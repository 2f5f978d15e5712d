"""
What does RecBole's SASRec take on the benchmark's samples? Runs in RecBole's own environment.

    python training_recbole.py SAMPLES.npz sasrec OPTIONS.json FOLDER

Data set, loader, model and trainer are RecBole's own, with its defaults: its loss is a softmax over the whole
catalogue, so that it draws no negatives. Prints one JSON object, and writes the vectors of items and held-out
users after each epoch into the folder.
"""

import contextlib
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.model.sequential_recommender import SASRec
from recbole.trainer import Trainer
from recbole.utils import init_seed

LENGTH = 50
BLOCK = 1024
HEADER = "session_id:token\titem_id_list:token_seq\titem_id:token\n"


def main(samples_file: str, _name: str, options: str, folder: str) -> None:
    """Train, print the figures and keep the vectors."""
    given = json.loads(options)
    sys.argv = sys.argv[:1]  # RecBole reads it
    with np.load(samples_file) as file:
        arrays = dict(file)
    with tempfile.TemporaryDirectory() as data_path, contextlib.chdir(data_path):
        _write_files(Path(data_path), arrays)
        config = Config(model="SASRec", dataset="clicks", config_dict=_config(data_path, given))
        init_seed(given["seed"], reproducibility=True)
        torch.set_num_threads(given["threads"])
        started, cpu = time.perf_counter(), time.process_time()
        dataset = create_dataset(config)
        train_batches, _, _ = data_preparation(config, dataset)
        model = SASRec(config, train_batches.dataset)
        trainer = Trainer(config, model)
    spent, cpu_spent, ends = time.perf_counter() - started, time.process_time() - cpu, []
    numbers = np.arange(1, int(arrays["n_items"]) + 1)
    row = np.append(0, dataset.token2id(dataset.iid_field, numbers.astype(str)))
    for epoch in range(1, given["epochs"] + 1):
        started, cpu = time.perf_counter(), time.process_time()
        trainer._train_epoch(train_batches, epoch)
        spent, cpu_spent = spent + time.perf_counter() - started, cpu_spent + time.process_time() - cpu
        ends.append(spent)
        items = model.item_embedding.weight.detach().numpy()[row[1:]]
        np.savez(Path(folder) / f"{epoch}.npz", users=_embed_users(model, arrays, row), items=items)
    n_samples = len(train_batches.dataset)
    figures = {"cpu_seconds": cpu_spent, "peak_mib": _peak_mib(), "n_samples": n_samples}
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    print(json.dumps({**figures, "ends": ends, "n_parameters": n_parameters}))


def _config(data_path: str, given: dict) -> dict:
    return {
        "data_path": data_path,
        "checkpoint_dir": data_path,
        "benchmark_filename": ["train", "valid", "test"],
        "alias_of_item_id": ["item_id_list"],
        "USER_ID_FIELD": "session_id",
        "load_col": None,
        "train_neg_sample_args": None,
        "MAX_ITEM_LIST_LENGTH": LENGTH,
        "hidden_size": given["dim"],
        "train_batch_size": given["batch"],
        "epochs": given["epochs"],
        "use_gpu": False,
        "seed": given["seed"],
        "show_progress": False,
    }


def _write_files(folder: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write RecBole's files; the valid one gives every item a row of the embedding, and is not learned."""
    (folder / "clicks").mkdir()
    parts = {
        "train": zip(_lists(arrays, "history"), arrays["target"].tolist(), strict=True),
        "valid": (([item], item) for item in range(1, int(arrays["n_items"]) + 1)),
        "test": [([1], 1)],
    }
    for part, rows in parts.items():
        lines = (
            f"{place}\t{' '.join(map(str, history))}\t{target}\n"
            for place, (history, target) in enumerate(rows)
        )
        (folder / "clicks" / f"clicks.{part}.inter").write_text(HEADER + "".join(lines))


def _lists(arrays: dict[str, np.ndarray], name: str) -> list[list[int]]:
    return [part.tolist() for part in np.split(arrays[name], arrays[f"{name}_offsets"][1:-1])]


@torch.no_grad()
def _embed_users(model: SASRec, arrays: dict[str, np.ndarray], row: np.ndarray) -> np.ndarray:
    model.eval()
    offsets = arrays["test_history_offsets"]
    lengths = np.diff(offsets)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    padded = np.zeros((len(lengths), LENGTH), np.int64)
    padded[owner, np.arange(len(owner)) - offsets[owner]] = row[arrays["test_history"]]
    blocks = [
        model(
            torch.from_numpy(padded[start : start + BLOCK]), torch.from_numpy(lengths[start : start + BLOCK])
        )
        for start in range(0, len(lengths), BLOCK)
    ]
    return torch.cat(blocks).numpy()


def _peak_mib() -> float:
    """Read the most that this program has held; getrusage would tell of the one that started it too."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


if __name__ == "__main__":
    main(*sys.argv[1:])
