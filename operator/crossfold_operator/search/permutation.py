"""A seeded permutation of range(size) that is computed index by index, for sizes that do not fit into memory."""

from hashlib import blake2b

_ROUNDS = 6


def permuted(index: int, size: int, seed: int) -> int:
    """Where a seeded permutation of ``range(size)`` sends an index.

    A Feistel network permutes the next larger power of four; an image outside the range is sent on until it falls
    inside (cycle walking), on average fewer than four times.

    Raises:
        ValueError: the index is outside the range.
    """
    if not 0 <= index < size:
        raise ValueError(f"index {index} is outside range({size})")
    half = (max(size - 1, 1).bit_length() + 1) // 2
    image = _feistel(index, half, seed)
    while image >= size:
        image = _feistel(image, half, seed)
    return image


def _feistel(index: int, half: int, seed: int) -> int:
    """Permute numbers of ``2 * half`` bits."""
    mask = (1 << half) - 1
    left, right = index >> half, index & mask
    for step in range(_ROUNDS):
        content = f"{seed}/{step}/{right}".encode()
        digest = blake2b(content, digest_size=half // 8 + 1).digest()
        left, right = right, left ^ (int.from_bytes(digest) & mask)
    return left << half | right
