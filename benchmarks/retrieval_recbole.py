"""
Which lists do RecBole's models give? Runs in RecBole's own environment (`make bench-env`).

    python -m benchmarks.retrieval_recbole FOLDER sasrec OPTIONS.json

Data set, loader, model and trainer are RecBole's own. The folder has learned.npz and asked_0.npz, .. of
`benchmarks.retrieval_split`. SASRec and CORE learn the samples and are asked with the users' histories;
LightGCN learns the interactions, and propagates its vectors anew on the graph of the asked day's histories.
With ``patience`` the first asked day judges each epoch, and training ends when it gets no better; without it
all epochs are learned and lists_0.npy, .. are written. Prints one JSON object.
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
from recbole.data.interaction import Interaction
from recbole.model.general_recommender import LightGCN
from recbole.model.sequential_recommender import CORE, SASRec
from recbole.trainer import Trainer
from recbole.utils import init_seed

from benchmarks.retrieval_lists import best_items, mean_share

MODELS = {"sasrec": SASRec, "core": CORE, "lightgcn": LightGCN}
BLOCK = 1024
SEQUENCES = "session_id:token\titem_id_list:token_seq\titem_id:token\n"
INTERACTIONS = "user_id:token\titem_id:token\n"


def main(folder: str, name: str, options: str) -> None:
    """Train, and print the figures."""
    folder, given = Path(folder).resolve(), json.loads(options)
    sys.argv = sys.argv[:1]  # RecBole reads it
    learned = _read(folder / "learned.npz")
    asked = [_read(folder / f"asked_{place}.npz") for place in range(given["n_asked"])]
    torch.set_num_threads(given["threads"])
    with tempfile.TemporaryDirectory() as data_path, contextlib.chdir(data_path):
        peer = Peer(name, learned, given, data_path)
    ends, cpu_seconds, shares, best = [], 0.0, [], 0
    for epoch in range(1, given["epochs"] + 1):
        started, cpu = time.perf_counter(), time.process_time()
        loss = peer.trainer._train_epoch(peer.batches, epoch)
        ends.append(time.perf_counter() - started + (ends[-1] if ends else 0.0))
        cpu_seconds += time.process_time() - cpu
        told = f"{name}: epoch {epoch}, {ends[-1]:.0f} s, loss {loss:.4f}"
        if given["patience"]:
            lists = peer.lists(asked[0], given["judged_k"])
            shares.append(mean_share(lists, asked[0]["wanted"], asked[0]["wanted_offsets"]))
            best = int(np.argmax(shares))
            told += f", HR@{given['judged_k']} {shares[-1]:.4f}"
        print(told, file=sys.stderr, flush=True)
        if given["patience"] and epoch - 1 - best >= given["patience"]:
            break
    if not given["patience"]:
        for place, day in enumerate(asked):
            np.save(folder / f"lists_{place}.npy", peer.lists(day, given["depth"]))
    n_parameters = sum(parameter.numel() for parameter in peer.model.parameters())
    print(
        json.dumps(
            {
                "seconds": ends[-1],
                "cpu_seconds": cpu_seconds,
                "epochs": len(ends),
                "n_rows": len(peer.batches.dataset),
                "n_parameters": n_parameters,
                "shares": shares,
            }
        )
    )


class Peer:
    """A model of RecBole's, its training batches, and our numbers of items and users in its rows."""

    def __init__(self, name: str, learned: dict[str, np.ndarray], given: dict, data_path: str) -> None:
        """Write RecBole's files and let it read them."""
        self.is_sequential = name != "lightgcn"
        write = _write_samples if self.is_sequential else _write_interactions
        write(Path(data_path), learned)
        config = Config(
            model=MODELS[name].__name__,
            dataset="clicks",
            config_dict=_config(data_path, given, self.is_sequential),
        )
        init_seed(given["seed"], reproducibility=True)
        self.dataset = create_dataset(config)
        self.batches, _, _ = data_preparation(config, self.dataset)
        self.model = MODELS[name](config, self.batches.dataset)
        self.trainer = Trainer(config, self.model)
        self.item_rows = self._rows(self.dataset.iid_field, learned["n_items"])
        if self.is_sequential:  # as many places as the longest sample has: the model knows no others
            self.length = self.dataset.field2seqlen["item_id_list"]
        else:
            self.user_rows = self._rows(self.dataset.uid_field, learned["n_users"])

    @torch.no_grad()
    def lists(self, day: dict[str, np.ndarray], k: int) -> np.ndarray:
        """Give each user's best items outside the past: int64 [n, k], -1 where there are none."""
        self.model.eval()
        if not self.is_sequential:
            self._use_graph(day)
        lists = np.full((len(day["user"]), k), -1, np.int64)
        known = np.diff(day["past_offsets"]) > 0 if self.is_sequential else day["user"] > 0
        places = np.flatnonzero(known)
        for start in range(0, len(places), BLOCK):
            block = places[start : start + BLOCK]
            pasts = [day["past"][slice(*day["past_offsets"][place : place + 2])] for place in block]
            asked = self._asked_by_past(pasts) if self.is_sequential else self._asked_by_user(day, block)
            scores = self.model.full_sort_predict(asked).view(len(block), -1).numpy()
            offsets = np.cumsum([0, *map(len, pasts)])
            lists[block] = best_items(
                scores[:, self.item_rows[1:]], day["available"], np.concatenate(pasts), offsets, k
            )
        return lists

    def _asked_by_past(self, pasts: list[np.ndarray]) -> Interaction:
        padded = np.zeros((len(pasts), self.length), np.int64)
        for row, past in enumerate(pasts):
            newest = self.item_rows[past[-self.length :]]
            padded[row, : len(newest)] = newest
        lengths = torch.from_numpy((padded > 0).sum(axis=1))
        return Interaction({self.model.ITEM_SEQ: torch.from_numpy(padded), self.model.ITEM_SEQ_LEN: lengths})

    def _asked_by_user(self, day: dict[str, np.ndarray], block: np.ndarray) -> Interaction:
        return Interaction({self.model.USER_ID: torch.from_numpy(self.user_rows[day["user"][block]])})

    def _use_graph(self, day: dict[str, np.ndarray]) -> None:
        """Let LightGCN propagate its vectors on the asked day's histories, until it is trained on."""
        model, trained = self.model, self.model.norm_adj_matrix
        users, items = self.user_rows[day["edge_user"]], self.item_rows[day["edge_item"]]
        own = model.interaction_matrix
        graph = type(own)((np.ones(len(users), np.float32), (users, items)), own.shape)
        if (graph.tocsr() != own.tocsr()).nnz:
            model.interaction_matrix = graph
            model.norm_adj_matrix = model.get_norm_adj_mat()
        model.restore_user_e, model.restore_item_e = model.forward()
        model.interaction_matrix, model.norm_adj_matrix = own, trained

    def _rows(self, field: str, n: int) -> np.ndarray:
        return np.append(0, self.dataset.token2id(field, np.arange(1, int(n) + 1).astype(str)))


def _config(data_path: str, given: dict, is_sequential: bool) -> dict:
    common = {
        "data_path": data_path,
        "checkpoint_dir": data_path,
        "benchmark_filename": ["train", "valid", "test"],
        "use_gpu": False,
        "seed": given["seed"],
        "show_progress": False,
        **given["config"],
    }
    if not is_sequential:
        return common
    return common | {
        "alias_of_item_id": ["item_id_list"],
        "USER_ID_FIELD": "session_id",
        "load_col": None,
        "train_neg_sample_args": None,
        "MAX_ITEM_LIST_LENGTH": given["length"],
    }


def _write_samples(folder: Path, learned: dict[str, np.ndarray]) -> None:
    """Write RecBole's files; the valid one gives every item a row of the embedding, and is not learned."""
    histories = np.split(learned["history"], learned["history_offsets"][1:-1])
    parts = {
        "train": zip((part.tolist() for part in histories), learned["target"].tolist(), strict=True),
        "valid": (([item], item) for item in range(1, int(learned["n_items"]) + 1)),
        "test": [([1], 1)],
    }
    for part, rows in parts.items():
        lines = (
            f"{place}\t{' '.join(map(str, history))}\t{target}\n"
            for place, (history, target) in enumerate(rows)
        )
        _write(folder, part, SEQUENCES, lines)


def _write_interactions(folder: Path, learned: dict[str, np.ndarray]) -> None:
    """Write RecBole's files; the valid one gives every user and item a row, and is not learned."""
    n_users, n_items = int(learned["n_users"]), int(learned["n_items"])
    parts = {
        "train": zip(learned["edge_user"].tolist(), learned["edge_item"].tolist(), strict=True),
        "valid": ((n % n_users + 1, n % n_items + 1) for n in range(max(n_users, n_items))),
        "test": [(1, 1)],
    }
    for part, rows in parts.items():
        _write(folder, part, INTERACTIONS, (f"{user}\t{item}\n" for user, item in rows))


def _write(folder: Path, part: str, header: str, lines) -> None:
    (folder / "clicks").mkdir(exist_ok=True)
    (folder / "clicks" / f"clicks.{part}.inter").write_text(header + "".join(lines))


def _read(file: Path) -> dict[str, np.ndarray]:
    with np.load(file) as arrays:
        return dict(arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
