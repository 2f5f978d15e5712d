"""
How does every user, item and day get its own random number without any stored state?

A value is a hash of (seed, name, keys...), so that any of them can be had alone, in any order. Keys are
integers or integer arrays that broadcast against each other; results have the broadcast shape.
"""

import zlib

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)

Keys = int | np.ndarray


def hashed(seed: int, name: str, *keys: Keys) -> np.ndarray:
    """Hash ``keys`` to uint64 (splitmix64, chained over the keys)."""
    state = np.array([(seed << 32) | zlib.crc32(name.encode())], dtype=np.uint64)
    for key in keys:
        state = _mix(state + _GOLDEN + np.asarray(key, dtype=np.int64).view(np.uint64))
    return state


def uniform(seed: int, name: str, *keys: Keys) -> np.ndarray:
    """Give float64 values in (0, 1)."""
    return ((hashed(seed, name, *keys) >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


def normal(seed: int, name: str, *keys: Keys) -> np.ndarray:
    """Give float64 standard normal values (Box-Muller)."""
    radius = np.sqrt(-2.0 * np.log(uniform(seed, name + ".radius", *keys)))
    return radius * np.cos(2.0 * np.pi * uniform(seed, name + ".angle", *keys))


def integers(seed: int, name: str, bound: int, *keys: Keys) -> np.ndarray:
    """Give int64 values in [0, bound)."""
    return (hashed(seed, name, *keys) % np.uint64(bound)).astype(np.int64)


def draw(probability: np.ndarray, fraction: np.ndarray) -> np.ndarray:
    """Draw one column of each row of ``probability`` [n, k] by uniform values [n]; int64 [n]."""
    cumulative = np.cumsum(probability, axis=1)
    last = probability.shape[1] - 1
    return np.minimum((cumulative < fraction[:, None] * cumulative[:, -1:]).sum(axis=1), last)


def _mix(state: np.ndarray) -> np.ndarray:
    state = (state ^ (state >> np.uint64(30))) * _FIRST
    state = (state ^ (state >> np.uint64(27))) * _SECOND
    return state ^ (state >> np.uint64(31))
