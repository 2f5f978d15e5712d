"""Every named method on the hard cases: no RTG, no ITG, an ETG of one, alone and among others."""

from typing import get_args

import numpy as np
import pyarrow as pa
import pytest

from models.increc.config import IncRecConfig, Variant
from models.increc.samples import NoSamples
from models.increc.training import train

VARIANTS = get_args(Variant)
ITEMS = list(range(1, 13))


def trained(tables, config: IncRecConfig, variant: str, *rows: tuple[list[int], list[int], list[int]]):
    """Train on requests given as (RTG, ITG, ETG); give the model and its report."""
    item_table, sample_table = tables
    samples = sample_table([[1, 2]] * len(rows), *map(list, zip(*rows, strict=True)))
    users = pa.table({"user_id": pa.array([0], pa.int64()), "profile": pa.array([["age=3"]])})
    small = config.model_copy(update={"variant": variant, "epochs": 2, "n_negatives": 5, "batch_size": 2})
    return train(samples, item_table(ITEMS), users, small)


CASES = {
    "a user with no RTG": [([], [3], [4, 5]), ([6], [7], [8])],
    "no RTG at all": [([], [3], [4, 5]), ([], [7], [8])],
    "a user with no ITG": [([3], [], [4]), ([6], [7], [8])],
    "an ETG of one": [([3], [4], [5])],
    "an ETG of one, which is the incremental item itself": [([3], [4], [4])],
    "no ETG": [([3], [4], []), ([5], [6], [])],
    "one item is RTG of one user and ITG of another": [([3], [4], [5]), ([4], [3], [5])],
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("case", CASES)
def test_every_method_learns_finite_vectors(tables, config, variant, case):
    model, report = trained(tables, config, variant, *CASES[case])
    assert all(np.isfinite(values).all() for values in report.step_losses.values())
    vectors = model.embed_items(tables[0](ITEMS))
    users = model.embed_users(pa.array([[1, 2], []], pa.list_(pa.int64())))
    assert np.isfinite(vectors).all()
    assert np.isfinite(users).all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_days_without_an_itg_train_what_does_not_need_one_and_are_refused_by_what_does(
    tables, config, variant
):
    rows = [([3], [], [4]), ([6], [], [8])]
    if variant in ("TB-Online", "TB-boost"):
        _, report = trained(tables, config, variant, *rows)
        assert report.n_itg == 0
        return
    with pytest.raises(NoSamples, match=f"{variant} has nothing to learn from"):
        trained(tables, config, variant, *rows)
