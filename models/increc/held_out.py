"""Whose samples are held out? Those of a share of the users, drawn by the seed."""

import numpy as np
import pyarrow as pa

from models.increc.config import IncRecConfig
from models.increc.features import splitmix64
from models.increc.samples import NoSamples, Samples, read_samples
from models.increc.vocabulary import Vocabulary


def split_users(samples: pa.Table, config: IncRecConfig) -> tuple[pa.Table, pa.Table | None]:
    """
    Give the samples to learn from, and those held out, None where ``validation_share`` is 0.

    A user is on one side with all samples, and on the same side every day.

    Raises:
        NoSamples: one of the sides is empty.
    """
    if config.validation_share == 0:
        return samples, None
    seed = splitmix64(np.array([config.seed], np.uint64))
    users = splitmix64(samples["user_id"].to_numpy().astype(np.uint64) ^ seed)
    is_held_out = users < np.uint64(config.validation_share * 2**64)
    if not is_held_out.any() or is_held_out.all():
        raise NoSamples(
            f"validation_share {config.validation_share} holds out {is_held_out.sum()} of {len(samples)} "
            "samples; change it, or set it to 0 and learn from all"
        )
    return samples.filter(pa.array(~is_held_out)), samples.filter(pa.array(is_held_out))


def read_held_out(
    held_out: pa.Table, users: pa.Table, vocabulary: Vocabulary, config: IncRecConfig
) -> Samples:
    """
    Read the samples that are held out.

    Raises:
        NoSamples: none has a positive, or an ITG item where the serving tower learns from these.
    """
    try:
        return read_samples(held_out, users, vocabulary, config)[0]
    except NoSamples as error:
        raise NoSamples(
            f"{config.variant} has nothing to measure its held-out loss on: validation_share "
            f"{config.validation_share} holds out {len(held_out)} samples, none with a positive that counts; "
            "raise it, or set it to 0 and learn from all"
        ) from error
