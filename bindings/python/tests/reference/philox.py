"""Philox4x32-10 (Salmon et al., SC 2011) in NumPy, and the stream of random dropping that is made of it.

Element e of a tensor is decided by word e mod 4 of the block with counter (low32(e div 4), high32(e div 4), model, 0)
and key FNV-1a-64(name) XOR seed: no thread, shard or order of work is in it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .arrays import Array

Words = npt.NDArray[np.uint32]
Mask = npt.NDArray[np.bool_]

MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
LOW = np.uint64(0xFFFFFFFF)
HALF = np.uint64(32)


def blocks(counters: npt.NDArray[Any], key: tuple[int, int]) -> Words:
    """Output words of every counter, n x 4, with one key of two words."""
    c0, c1, c2, c3 = (np.asarray(column, np.uint64) for column in np.asarray(counters).T)
    k0, k1 = key
    for _ in range(ROUNDS):
        first, second = MULTIPLIERS[0] * c0, MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (
            (second >> HALF) ^ c1 ^ np.uint64(k0),
            second & LOW,
            (first >> HALF) ^ c3 ^ np.uint64(k1),
            first & LOW,
        )
        k0, k1 = (k0 + WEYL[0]) % 2**32, (k1 + WEYL[1]) % 2**32
    return np.stack([c0, c1, c2, c3], axis=1).astype(np.uint32)


def fnv1a(text: str) -> int:
    """FNV-1a of 64 bits over the UTF-8 bytes."""
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = ((value ^ byte) * 0x100000001B3) % 2**64
    return value


def stream(name: str, size: int, model: int, seed: int) -> Words:
    """One word for every element of a tensor."""
    key = fnv1a(name) ^ (seed % 2**64)
    index = np.arange(-(-size // 4), dtype=np.uint64)
    counters = np.zeros((len(index), 4), np.uint64)
    counters[:, 0] = index & LOW
    counters[:, 1] = index >> HALF
    counters[:, 2] = model
    return blocks(counters, (key % 2**32, key >> 32)).reshape(-1)[:size]


def kept(name: str, size: int, model: int, seed: int, probability: float | Array) -> Mask:
    """Elements kept: word < floor(p * 2^32 + 0.5); all of them where p >= 1."""
    limit = np.floor(np.broadcast_to(np.asarray(probability, np.float64), (size,)) * 2.0**32 + 0.5)
    result: Mask = stream(name, size, model, seed).astype(np.float64) < limit
    return result
