"""
How fast are a user's candidates scored, beside the plain forward pass over the same ones?

    python -m benchmarks.nearline_scoring [--dims 32 64] [--threads 2] [--runs 50]

100 triggers with 1250 targets each reach 10,000, 50,000 and 100,000 candidates of random networks. Both go
the whole way from the triggers to the best 500: walk the lists, score, select; the plain pass makes its
inputs in between. Beside that: scoring alone, where the plain pass has its inputs ready made. Both use the
same number of threads, in turns. The last line is one JSON object; its ratio is the plain way's median over
ours at 100,000 candidates and the first of the dims.
"""

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import torch

from benchmarks.arguments import at_least_one
from benchmarks.running import print_table
from models.increc.ragged import Ragged
from models.increc.reproducible import cpu_threads
from models.pi2i.batches import share_of_triggers
from models.pi2i.candidates import gather, scratch
from models.pi2i.config import PI2IConfig
from models.pi2i.network import Scorer, UserBlock
from models.pi2i.scoring import Candidates, CatalogueScorer
from models.pi2i.trigger_index import trigger_index
from models.selection import best_first

N_TRIGGERS, TRUNCATION, K = 100, 1250, 500
# candidates that are scored, and the items among which the targets are drawn so that there are enough
SIZES = {10_000: 11_000, 50_000: 60_000, 100_000: 400_000}
TOLERANCE = 1e-4


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--dims", nargs="+", type=at_least_one, default=[32, 64])
    parser.add_argument("--threads", type=at_least_one, default=2)
    parser.add_argument("--runs", type=at_least_one, default=50)
    arguments = parser.parse_args()
    rows = [measure(n, dim, arguments.threads, arguments.runs) for dim in arguments.dims for n in SIZES]
    print_table(tuple(rows[0]), [tuple(row.values()) for row in rows])
    ratio = next(row["ratio"] for row in rows if row["candidates"] == max(SIZES))
    figures = {"threads": arguments.threads, "runs": arguments.runs, "rows": rows}
    print(json.dumps({"name": "nearline_scoring", "ratio": ratio, "figures": figures}))


def measure(n: int, dim: int, n_threads: int, n_runs: int) -> dict[str, float]:
    """Time both on ``n`` candidates; milliseconds of wall-clock time."""
    user = RandomUser(n, dim)
    with cpu_threads(n_threads):
        expected = user.score_plainly()
        with cpu_threads(1):
            difference = np.abs(user.score_fast(n_threads) - expected).max()
        if difference > TOLERANCE:
            raise SystemExit(f"fast scoring is {difference} off the plain pass at {n} candidates, dim {dim}")
        took = {name: [] for name in ("ours", "plain", "logits", "forward")}
        for run in range(n_runs):
            with cpu_threads(1):
                took["ours"].append(_milliseconds(lambda: user.retrieve(n_threads)))
                took["logits"].append(_milliseconds(lambda: user.score_fast(n_threads)))
            if run < max(5, n_runs // 5):
                took["plain"].append(_milliseconds(user.retrieve_plainly))
                took["forward"].append(_milliseconds(user.score_plainly))
    middle = {name: float(np.median(each)) for name, each in took.items()}
    return {
        "dim": dim,
        "candidates": n,
        "ms_p50": round(middle["ours"], 1),
        "ms_p99": round(float(np.quantile(took["ours"], 0.99)), 1),
        "plain_ms_p50": round(middle["plain"], 1),
        "ratio": round(middle["plain"] / middle["ours"], 2),
        "scoring_ms_p50": round(middle["logits"], 1),
        "forward_ms_p50": round(middle["forward"], 1),
        "scoring_ratio": round(middle["forward"] / middle["logits"], 2),
        "difference": float(difference),
    }


class RandomUser:
    """A user whose triggers reach at least ``n`` candidates, of which the first ``n`` are scored."""

    def __init__(self, n: int, dim: int) -> None:
        """Draw lists, embeddings and a network."""
        generator = np.random.default_rng(0)
        torch.manual_seed(0)
        targets = [generator.choice(SIZES[n], TRUNCATION, replace=False) for _ in range(N_TRIGGERS)]
        rank = np.tile(np.arange(1, TRUNCATION + 1), N_TRIGGERS)
        i2i_table = pa.table(
            {
                "trigger_item_id": np.repeat(np.arange(N_TRIGGERS), TRUNCATION),
                "target_item_id": np.concatenate(targets),
                "score": 1 / rank,
                "rank": rank.astype(np.int32),
                "n_common_users": np.full(len(rank), 3, np.int32),
            }
        )
        self.n, self.config = n, PI2IConfig(dim=dim)
        self.index = trigger_index(i2i_table)
        self.network = Scorer(self.config, 1).eval()
        self.targets = torch.randn(len(self.index.item_ids), dim) / 4
        self.embedded = torch.randn(N_TRIGGERS, dim) / 4
        self.scorer = CatalogueScorer(self.network, self.index, self.targets, self.embedded)
        self.profile = self.scorer.embed_profiles(Ragged(np.zeros(1, np.int64), np.array([0, 1])))[0]
        self.memory, self.row = scratch(len(self.index.item_ids)), 0
        self.triggers = np.arange(N_TRIGGERS, dtype=np.int32)
        self.candidates = self.reach()
        if len(self.candidates.codes) < n:
            raise SystemExit(f"only {len(self.candidates.codes)} candidates where {n} are to be scored")
        self.block = self._block(self.candidates)

    def reach(self) -> Candidates:
        """Walk the triggers' lists."""
        self.row += 1
        no_price = np.full(len(self.index.item_ids), np.nan, np.float32)
        nothing = np.empty(0, np.int32)
        found = gather(
            self.row,
            self.triggers,
            nothing,
            self.index.lists,
            no_price,
            no_price[:N_TRIGGERS],
            self.memory,
        )
        return Candidates(*(values[: self.n] for values in found))

    def retrieve(self, n_threads: int) -> np.ndarray:
        """Go the whole way of a click."""
        return self.scorer.best(self.profile, self.triggers, self.reach(), K, n_threads=n_threads)[0]

    def retrieve_plainly(self) -> np.ndarray:
        """Go the whole way with the forward pass."""
        candidates = self.reach()
        with torch.inference_mode():
            logits = self.network(self._block(candidates))[0].numpy()
        return best_first(candidates.codes, logits, K)[0]

    def score_fast(self, n_threads: int) -> np.ndarray:
        """Give ours: float32 [n]."""
        return self.scorer.logits(self.profile, self.triggers, self.candidates, n_threads=n_threads)

    @torch.inference_mode()
    def score_plainly(self) -> np.ndarray:
        """Give the forward pass's: float32 [n]."""
        return self.network(self.block)[0].numpy()

    def _block(self, candidates: Candidates) -> UserBlock:
        codes, masks, cross = candidates
        shares = share_of_triggers(masks, N_TRIGGERS, self.config, np.random.default_rng(0))
        return UserBlock(
            self.embedded[None],
            torch.ones(1, N_TRIGGERS, dtype=torch.bool),
            self.network.profile_embedding.weight[:1].detach(),
            self.targets[torch.from_numpy(codes)][None],
            torch.from_numpy(shares)[None],
            torch.from_numpy(cross)[None],
            torch.from_numpy(self.index.statistics[codes])[None],
        )


def _milliseconds(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()
    return 1e3 * (time.perf_counter() - started)


if __name__ == "__main__":
    main()
