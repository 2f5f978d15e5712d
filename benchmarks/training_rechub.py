"""
What does torch-rechub's training take on the benchmark's samples? Runs in the peers' environment.

    python training_rechub.py SAMPLES.npz MODEL OPTIONS.json FOLDER

Models, loader and trainer are torch-rechub's own, with its defaults. Prints one JSON object, and writes the
vectors of items and held-out users after each epoch into the folder. How each model gets its negatives:

- youtubednn, comirec, mind: N a sample, drawn with its ``negative_sample`` from the logged items beforehand;
- dssm: N of the other positives of the batch for each sample, its in-batch mode (its point-wise mode would
  need N + 1 rows a sample);
- sasrec: one for each position of the history, its pair-wise mode (its in-batch mode asks its embedding layer
  for a table that is not there).
"""

import contextlib
import json
import os
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from torch_rechub.basic.features import SequenceFeature, SparseFeature
from torch_rechub.models.matching import DSSM, MIND, ComirecSA, SASRec, YoutubeDNN
from torch_rechub.trainers import MatchTrainer
from torch_rechub.utils.data import MatchDataGenerator
from torch_rechub.utils.match import negative_sample

LENGTH = 50
POINT_WISE, PAIR_WISE, LIST_WISE = 0, 1, 2


def main(samples_file: str, name: str, options: str, folder: str) -> None:
    """Train, print the figures and keep the vectors."""
    given = json.loads(options)
    torch.set_num_threads(given["threads"])
    torch.manual_seed(given["seed"])
    np.random.seed(given["seed"])
    with np.load(samples_file) as file:
        arrays = dict(file)
    model, mode, sampled = _model(name, int(arrays["n_items"]), given)
    started, cpu = time.perf_counter(), time.process_time()
    inputs = _inputs(name, arrays, given["negatives"])
    generator = MatchDataGenerator(inputs, np.zeros(len(arrays["target"]), np.int64))
    test = _histories(name, arrays, "test_history")
    items = {"item": np.arange(1, int(arrays["n_items"]) + 1)}
    batches, test_batches, item_batches = generator.generate_dataloader(
        test, items, batch_size=given["batch"], num_workers=0
    )
    if "learning_rate" in given:
        sampled["optimizer_params"] = {
            "lr": given["learning_rate"],
            "weight_decay": 1e-5,
        }  # its default decay
    trainer = MatchTrainer(model, mode=mode, n_epoch=given["epochs"], model_path=folder, **sampled)
    spent, cpu_spent, ends = time.perf_counter() - started, time.process_time() - cpu, []
    for epoch in range(1, given["epochs"] + 1):
        started, cpu = time.perf_counter(), time.process_time()
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
            trainer.train_one_epoch(batches)
        spent, cpu_spent = spent + time.perf_counter() - started, cpu_spent + time.process_time() - cpu
        ends.append(spent)
        vectors = {"users": _embed(model, "user", test_batches), "items": _embed(model, "item", item_batches)}
        if name == "sasrec":
            vectors["items"] = model.item_emb.embed_dict["seq"].weight.detach().numpy()[1:]
        np.savez(Path(folder) / f"{epoch}.npz", **vectors)
    figures = {"cpu_seconds": cpu_spent, "peak_mib": _peak_mib(), "n_samples": len(arrays["target"])}
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    print(json.dumps({**figures, "ends": ends, "n_parameters": n_parameters}))


def _model(name: str, n_items: int, given: dict) -> tuple[torch.nn.Module, int, dict]:
    """Build the model; also give the trainer's mode and its options for negatives."""
    size, dim = n_items + 1, given["dim"]
    tower = {"dims": [given["hidden_dim"], dim]}
    item = [SparseFeature("item", vocab_size=size, embed_dim=dim, padding_idx=0)]
    mean, every = (
        [SequenceFeature("history", size, dim, pooling=pooling, shared_with="item", padding_idx=0)]
        for pooling in ("mean", "concat")
    )
    negatives = [SequenceFeature("negatives", size, dim, pooling="concat", shared_with="item")]
    same_user = [SparseFeature("user", vocab_size=1, embed_dim=dim)]  # it must be told of one
    temperature = {"temperature": given["temperature"]}
    if name == "youtubednn":
        return YoutubeDNN(mean, item, negatives, tower, **temperature), LIST_WISE, {}
    if name == "dssm":
        in_batch = {"in_batch_neg": True, "in_batch_neg_ratio": min(given["negatives"], given["batch"] - 1)}
        return DSSM(mean, item, tower, tower, **temperature), POINT_WISE, in_batch
    if name == "comirec":
        return ComirecSA(same_user, every, item, negatives, **temperature), LIST_WISE, {}
    if name == "mind":
        return MIND(same_user, every, item, negatives, max_length=LENGTH, **temperature), LIST_WISE, {}
    sequences = [
        SequenceFeature("seq", size, dim, pooling="concat"),
        SequenceFeature("pos", size, dim, pooling="concat", shared_with="seq"),
        SequenceFeature("neg", size, dim, pooling="concat", shared_with="seq"),
    ]
    return PairedSASRec(sequences, max_len=LENGTH), PAIR_WISE, {}


class PairedSASRec(SASRec):
    """Its SASRec with every position of a history a row, as the pair-wise loss of its trainer wants it."""

    def forward(self, x):
        """Give the scores of the next items and of the negatives: [p] each, p positions of the batch."""
        if self.mode:
            return super().forward(x)
        positive, negative = super().forward(x)
        is_item = x["seq"] > 0
        return positive[is_item], negative[is_item]


def _inputs(name: str, arrays: dict[str, np.ndarray], n_negatives: int) -> dict[str, np.ndarray]:
    inputs = _histories(name, arrays, "history")
    n = len(arrays["target"])
    counts = dict(Counter(arrays["target"].tolist()).most_common())
    if name == "sasrec":
        history = inputs["seq"]
        places = (history > 0).sum(axis=1) - 1
        following = np.roll(history, -1, axis=1)
        following[:, -1] = 0
        following[np.arange(n), places] = arrays["target"]
        drawn = negative_sample(counts, history.size).reshape(history.shape)
        return {"seq": history, "pos": following, "neg": np.where(history > 0, drawn, 0)}
    inputs["item"] = arrays["target"]
    if name != "dssm":
        inputs["negatives"] = negative_sample(counts, n * n_negatives).reshape(n, n_negatives)
    return inputs


def _histories(name: str, arrays: dict[str, np.ndarray], part: str) -> dict[str, np.ndarray]:
    """Pad to int64 [n, LENGTH], at the end for SASRec, which reads the last one that is no padding."""
    offsets = arrays[f"{part}_offsets"]
    lengths = np.diff(offsets)
    place = np.arange(len(arrays[part])) - np.repeat(offsets[:-1], lengths)
    if name != "sasrec":
        place = place + np.repeat(LENGTH - lengths, lengths)
    padded = np.zeros((len(lengths), LENGTH), np.int64)
    padded[np.repeat(np.arange(len(lengths)), lengths), place] = arrays[part]
    if name == "sasrec":
        return {"seq": padded}
    return {"history": padded, "user": np.zeros(len(lengths), np.int64)}


@torch.no_grad()
def _embed(model: torch.nn.Module, side: str, batches) -> np.ndarray:
    if side == "item" and isinstance(model, SASRec):
        return np.empty(0)
    model.eval()
    model.mode = side
    vectors = np.concatenate([model(batch).numpy() for batch in batches])
    model.mode = None
    return vectors


def _peak_mib() -> float:
    """Read the most that this program has held; getrusage would tell of the one that started it too."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


if __name__ == "__main__":
    main(*sys.argv[1:])
