"""A seeded permutation of range(size) that is computed index by index, for sizes that do not fit into memory."""

from collections.abc import Callable
from hashlib import blake2b, shake_256

_ROUNDS = 6


def permuted(index: int, size: int, seed: int) -> int:
    """Where a seeded permutation of ``range(size)`` sends an index.

    A Feistel network permutes the next larger power of four; an image outside the range is sent on until it falls
    inside (cycle walking), on average fewer than four times.

    Raises:
        ValueError: the index is outside the range.
    """
    return _walked(_feistel, index, size, seed)


def place_of(image: int, size: int, seed: int) -> int:
    """Which index the permutation sends to an image: the inverse of ``permuted``.

    Raises:
        ValueError: the image is outside the range.
    """
    return _walked(_unfeistel, image, size, seed)


def _walked(permute: Callable[[int, int, int], int], index: int, size: int, seed: int) -> int:
    """Permute an index until it falls inside the range; ``permute`` takes it, the bits of its half, and the seed."""
    if not 0 <= index < size:
        raise ValueError(f"index {index} is outside range({size})")
    half = (max(size - 1, 1).bit_length() + 1) // 2
    index = permute(index, half, seed)
    while index >= size:
        index = permute(index, half, seed)
    return index


def _feistel(index: int, half: int, seed: int) -> int:
    """Permute numbers of ``2 * half`` bits."""
    left, right = index >> half, index & ((1 << half) - 1)
    for step in range(_ROUNDS):
        left, right = right, left ^ _mixed(right, half, seed, step)
    return left << half | right


def _unfeistel(image: int, half: int, seed: int) -> int:
    left, right = image >> half, image & ((1 << half) - 1)
    for step in reversed(range(_ROUNDS)):
        left, right = right ^ _mixed(left, half, seed, step), left
    return left << half | right


def _mixed(right: int, half: int, seed: int, step: int) -> int:
    text, size = f"{seed}/{step}/{right}".encode(), half // 8 + 1
    # BLAKE2b is faster, and has 64 bytes at most.
    digest = (
        blake2b(text, digest_size=size).digest() if size <= blake2b.MAX_DIGEST_SIZE else shake_256(text).digest(size)
    )
    return int.from_bytes(digest) & ((1 << half) - 1)
