"""Fast scoring against the plain pass in float64, on random networks over several blocks of candidates."""

from copy import deepcopy

import numpy as np
import pyarrow as pa
import pytest
import torch

from models.increc.ragged import Ragged
from models.increc.reproducible import cpu_threads
from models.pi2i.batches import share_of_triggers
from models.pi2i.candidates import N_CROSS
from models.pi2i.config import PI2IConfig
from models.pi2i.network import Scorer, UserBlock
from models.pi2i.scoring import BLOCK, Candidates, CatalogueScorer
from models.pi2i.trigger_index import trigger_index

N_ITEMS, N_TRIGGERS = 40, 128


class Drawn:
    """A network, a catalogue and a user's candidates, drawn at random."""

    def __init__(self, config: PI2IConfig, n: int, n_triggers: int, scale: float) -> None:
        generator = np.random.default_rng(n)
        torch.manual_seed(n)
        self.config = config
        self.network = Scorer(config, 1).eval()
        self.network.key.weight.data *= scale
        for features in (self.network.cross, self.network.statistics):
            features.fit(torch.randn(50, len(features.mean)) * 2 + 1)
        trigger, target = np.divmod(np.arange(N_TRIGGERS * N_ITEMS), N_ITEMS)
        table = {
            "trigger_item_id": trigger,
            "target_item_id": target + 1000,
            "score": np.full(len(trigger), 0.5),
            "rank": (target + 1).astype(np.int32),
            "n_common_users": np.full(len(trigger), 3, np.int32),
        }
        self.index = trigger_index(pa.table(table))
        self.targets, self.triggers = torch.randn(N_ITEMS, config.dim), torch.randn(N_TRIGGERS, config.dim)
        self.own = generator.permutation(N_TRIGGERS)[:n_triggers].astype(np.int32)
        bits = generator.random((n, 128)) < 0.05
        bits[:, n_triggers:] = False
        bits[np.arange(n), generator.integers(0, n_triggers, n)] = True
        masks = np.packbits(bits, axis=1, bitorder="little").view("<u8").astype(np.uint64)
        cross = generator.normal(size=(n, N_CROSS)).astype(np.float32)
        self.candidates = Candidates(generator.integers(0, N_ITEMS, n).astype(np.int32), masks, cross)

    def fast(self, n_threads: int = 1) -> np.ndarray:
        scorer = CatalogueScorer(self.network, self.index, self.targets, self.triggers)
        profile = scorer.embed_profiles(Ragged(np.zeros(1, np.int64), np.array([0, 1])))[0]
        return scorer.logits(profile, self.own, self.candidates, n_threads=n_threads)

    @torch.inference_mode()
    def plain(self) -> np.ndarray:
        codes, masks, cross = self.candidates
        shares = share_of_triggers(masks, len(self.own), self.config, np.random.default_rng(0))
        block = UserBlock(
            self.triggers[self.own.astype(np.int64)][None].double(),
            torch.ones(1, len(self.own), dtype=torch.bool),
            self.network.profile_embedding.weight[:1].double(),
            self.targets[codes.astype(np.int64)][None].double(),
            torch.from_numpy(shares)[None].double(),
            torch.from_numpy(cross)[None].double(),
            torch.from_numpy(self.index.statistics[codes])[None].double(),
        )
        return deepcopy(self.network).double()(block)[0].numpy()


@pytest.mark.parametrize("values", [{}, {"attention": "self"}, {"triggers": "single"}, {"triggers": "none"}])
@pytest.mark.parametrize(("n_heads", "n_triggers"), [(1, N_TRIGGERS), (1, 7), (4, 7), (2, 1)])
def test_blocks_equal_the_plain_pass_whatever_the_threads(values, n_heads, n_triggers):
    config = PI2IConfig(dim=16, hidden_dim=24, n_heads=n_heads, **values)
    drawn = Drawn(config, 2 * BLOCK + 1, n_triggers, scale=1.0)
    with cpu_threads(1):
        one, three, as_cpus = (drawn.fast(n_threads=n) for n in (1, 3, 0))
    assert np.array_equal(one, three)
    assert np.array_equal(one, as_cpus)
    np.testing.assert_allclose(one, drawn.plain(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale", [0.0, 30.0, 3000.0])
def test_attention_is_right_from_equal_weights_to_one_trigger_alone(scale):
    drawn = Drawn(PI2IConfig(dim=16, hidden_dim=24, n_heads=2), 50, 100, scale)
    np.testing.assert_allclose(drawn.fast(), drawn.plain(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("n", [1, BLOCK - 1, BLOCK])
def test_a_last_block_may_be_whole_or_all_there_is(n):
    drawn = Drawn(PI2IConfig(dim=16, hidden_dim=24), n, 5, scale=1.0)
    np.testing.assert_allclose(drawn.fast(), drawn.plain(), rtol=1e-4, atol=1e-5)
