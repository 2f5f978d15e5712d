import numpy as np
import pyarrow as pa
import pytest
import torch

from models.increc.batches import Batches
from models.increc.network import IncRec
from models.increc.objective import loss_terms, most_similar_of_day
from models.increc.samples import read_samples
from models.increc.vocabulary import build_vocabulary

NO_USERS = pa.table({"user_id": pa.array([], pa.int64()), "profile": pa.array([], pa.list_(pa.string()))})
COLUMNS = ([[1], [2, 3], []], [[2], [], [4]], [[3], [4], [5]], [[5, 6], [1], []])


@pytest.fixture
def terms_of(tables, config):
    item_table, sample_table = tables

    def compute(variant: str, *columns, network_seed: int = 0, **changes):
        changed = config.model_copy(update={"variant": variant, "n_negatives": 4} | changes)
        vocabulary = build_vocabulary(item_table(range(1, 13)), changed)
        samples, _ = read_samples(sample_table(*columns), NO_USERS, vocabulary, changed)
        batches = Batches(samples, vocabulary, np.arange(1, 13), changed)
        torch.manual_seed(network_seed)
        network = IncRec(changed, len(vocabulary))
        rows = torch.arange(len(vocabulary))
        network.item_embedding.draw_seen(rows, torch.from_numpy(vocabulary.side))
        (batch,) = batches.epoch(1)
        return loss_terms(network, batch, changed), network

    return compute


@pytest.mark.parametrize(
    ("variant", "towers"),
    [
        ("TB-Online", {"basic"}),
        ("TB-ITG", {"basic"}),
        ("TB-boost", {"basic"}),
        ("IncRec-NA", {"basic", "incremental"}),
        ("IncRec-ori", {"basic", "incremental", "alignment"}),
        ("IncRec", {"basic", "incremental", "alignment"}),
    ],
)
@pytest.mark.parametrize("backbone", ["youtubednn", "dssm"])
def test_variant_has_the_terms_and_towers_of_its_name_alone(terms_of, variant, towers, backbone):
    terms, network = terms_of(variant, *COLUMNS, backbone=backbone)
    assert set(terms) == set(network.user_towers) == towers
    sum(terms.values()).backward()
    for tower in network.user_towers.values():
        assert all(parameter.grad.abs().sum() > 0 for parameter in tower.parameters())


def test_tb_itg_ignores_retrieved_targets_and_tb_boost_weighs_incremental_ones(terms_of):
    history, _, _, etg = COLUMNS
    rtg, itg, none = [[2], [7], [4]], [[3], [8], [5]], [[], [], []]
    only_itg = terms_of("TB-ITG", history, rtg, itg, etg)[0]["basic"]
    online = terms_of("TB-Online", history, rtg, itg, etg)[0]["basic"]
    boost = terms_of("TB-boost", history, rtg, itg, etg, boost=3.0)[0]["basic"]
    assert 0 < only_itg < online
    assert boost.item() == pytest.approx((online + 2 * only_itg).item(), rel=1e-5)
    unboosted = terms_of("TB-boost", history, rtg, none, etg)[0]["basic"]
    assert unboosted.item() == pytest.approx(
        terms_of("TB-Online", history, rtg, none, etg)[0]["basic"].item()
    )


def test_alpha_of_the_variants_differs_and_none_is_one(terms_of):
    columns = ([[1]] * 2, [[], []], [[3, 4], [5]], [[6, 7], [8]])
    values = {variant: terms_of(variant, *columns)[0] for variant in ("IncRec-ori", "IncRec")}
    incremental = {variant: terms["incremental"].item() for variant, terms in values.items()}
    assert incremental["IncRec-ori"] != pytest.approx(incremental["IncRec"], rel=1e-6)
    assert values["IncRec-ori"]["alignment"] == values["IncRec"]["alignment"]


def test_alignment_tower_gets_no_gradient_from_the_incremental_term(terms_of):
    terms, network = terms_of("IncRec", *COLUMNS)
    terms["incremental"].backward()
    assert all(parameter.grad is None for parameter in network.user_towers["alignment"].parameters())
    assert all(parameter.grad is not None for parameter in network.user_towers["incremental"].parameters())


def test_retrieved_targets_are_negatives_of_the_incremental_tower(terms_of):
    history, _, itg, etg = COLUMNS
    without = terms_of("IncRec-NA", history, [[], [], []], itg, etg)[0]["incremental"]
    with_rtg = terms_of("IncRec-NA", history, [[9], [10], [11]], itg, etg)[0]["incremental"]
    assert with_rtg > without


@pytest.mark.parametrize("etg", [[[], [], []], [[3], [], []], [[3, 6], [7], []]])
def test_thin_exposure_groups_are_finite(terms_of, etg):
    terms, _ = terms_of("IncRec", *COLUMNS[:3], etg)
    assert all(torch.isfinite(term) for term in terms.values())
    assert (terms["alignment"] == 0) == (etg == [[], [], []])


def test_batch_without_incremental_targets_has_a_zero_term(tables, config, terms_of):
    item_table, sample_table = tables
    changed = config.model_copy(update={"variant": "IncRec", "batch_size": 1, "n_negatives": 4})
    vocabulary = build_vocabulary(item_table(range(1, 13)), changed)
    columns = ([[1], [1]], [[2], []], [[], [3]], [[4], [4]])
    samples, _ = read_samples(sample_table(*columns), NO_USERS, vocabulary, changed)
    network = IncRec(changed, len(vocabulary))
    values = [
        loss_terms(network, batch, changed)["incremental"].item()
        for batch in Batches(samples, vocabulary, np.arange(1, 13), changed).epoch(1)
    ]
    assert sorted(value > 0 for value in values) == [False, True]


def test_most_similar_of_the_day_is_exposed_on_that_day_and_not_the_item_itself(tables, config):
    item_table, sample_table = tables
    config = config.model_copy(update={"variant": "IncRec", "etg_pool": "day"})
    vocabulary = build_vocabulary(item_table([1, 2, 3, 4]), config)
    parts = [
        sample_table([[1]] * 2, [[]] * 2, [[1], [2]], [[1, 3], [4]], day=1),
        sample_table([[1]], [[]], [[2]], [[2]], day=2),
        sample_table([[1]], [[]], [[2]], [[]], day=3),
    ]
    samples, _ = read_samples(pa.concat_tables(parts), NO_USERS, vocabulary, config)
    representations = torch.tensor([[0.0, 0], [1, 0], [0.9, 0.1], [0.8, 0.2], [0, 1]])
    assert most_similar_of_day(lambda rows: representations[rows], samples).tolist() == [3, 1, 0, 0]
