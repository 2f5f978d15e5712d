"""
What does training of ours take on the benchmark's samples? Run in a process of its own.

    python -m benchmarks.training_ours SAMPLES.npz BACKBONE OPTIONS.json FOLDER

Prints one JSON object, and writes the vectors of items and held-out users after each epoch into the folder.
The times are of one run over all epochs; the models of the epochs before come from runs that stop there.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from models.increc.config import IncRecConfig
from models.increc.training import train

NO_FEATURES = {
    f"n_{name}_buckets": 0
    for name in ("category", "author", "brand", "price", "profile", "gap", "scenario")
    if f"n_{name}_buckets" in IncRecConfig.model_fields
}


def main(samples_file: str, backbone: str, options: str, folder: str) -> None:
    """Train, print the figures and keep the vectors."""
    given = json.loads(options)
    config = IncRecConfig(
        variant="TB-Online",
        backbone=backbone,
        dim=given["dim"],
        hidden_dim=given["hidden_dim"],
        temperature=given["temperature"],
        learning_rate=given.get("learning_rate", IncRecConfig.model_fields["learning_rate"].default),
        n_negatives=given["negatives"],
        negatives=given["drawn"],
        epochs=given["epochs"],
        batch_size=given["batch"],
        n_threads=given["threads"],
        seed=given["seed"],
        **NO_FEATURES,
    )
    with np.load(samples_file) as file:
        arrays = dict(file)
    samples, items = _samples(arrays), _items(int(arrays["n_items"]))
    users = pa.table({"user_id": pa.array([], pa.int64()), "profile": pa.array([], pa.list_(pa.string()))})
    _train(samples.slice(0, 2000), items, users, config.model_copy(update={"epochs": 1}))  # loads all code
    started, cpu = time.perf_counter(), time.process_time()
    ends = []
    model, _ = _train(samples, items, users, config, lambda *_: ends.append(time.perf_counter() - started))
    figures = {"cpu_seconds": time.process_time() - cpu, "peak_mib": _peak_mib(), "n_samples": len(samples)}
    for epoch in range(1, config.epochs + 1):
        if epoch < config.epochs:
            part, _ = _train(samples, items, users, config.model_copy(update={"epochs": epoch}))
        else:
            part = model
        vectors = part.embed_users(_lists(arrays, "test_history"))
        np.savez(Path(folder) / f"{epoch}.npz", users=vectors, items=part.embed_items(items))
    print(json.dumps({**figures, "ends": ends, "n_parameters": _n_parameters(model)}))


def _train(samples, items, users, config, on_epoch=None):
    return train(samples, items, users, config, device="cpu", on_epoch=on_epoch)


def _samples(arrays: dict[str, np.ndarray]) -> pa.Table:
    """Give the samples as rows of ``increc_sample``: the click is the one RTG item, none is an ITG one."""
    n = len(arrays["target"])
    history = _lists(arrays, "history")
    nothing = pa.ListArray.from_arrays(pa.array(np.zeros(n + 1, np.int32)), pa.array([], pa.int64()))
    time_of_all = pa.scalar(0, pa.timestamp("us", "UTC"))
    return pa.table(
        {
            "user_id": np.zeros(n, np.int64),
            "event_time": pa.repeat(time_of_all, n),
            "history_item_ids": history,
            "history_event_times": _like(history, time_of_all),
            "history_scenarios": _like(history, pa.scalar("")),
            "rtg_item_ids": pa.ListArray.from_arrays(
                pa.array(np.arange(n + 1, dtype=np.int32)), pa.array(arrays["target"])
            ),
            "itg_item_ids": nothing,
            "etg_item_ids": nothing,
        }
    )


def _items(n_items: int) -> pa.Table:
    numbers = np.arange(1, n_items + 1)
    return pa.table({"item_id": numbers, "item_index": numbers})


def _lists(arrays: dict[str, np.ndarray], name: str) -> pa.ListArray:
    offsets = pa.array(arrays[f"{name}_offsets"], pa.int32())
    return pa.ListArray.from_arrays(offsets, pa.array(arrays[name]))


def _like(lists: pa.ListArray, value: pa.Scalar) -> pa.ListArray:
    return pa.ListArray.from_arrays(lists.offsets, pa.repeat(value, len(lists.values)))


def _n_parameters(model) -> int:
    return sum(parameter.numel() for parameter in model.network.parameters())


def _peak_mib() -> float:
    """Read the most that this program has held; getrusage would tell of the one that started it too."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


if __name__ == "__main__":
    main(*sys.argv[1:])
