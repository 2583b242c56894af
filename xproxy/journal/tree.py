"""The Merkle tree of RFC 6962 section 2.1: leaves, roots, proofs.

Everything here is arithmetic on 32-byte SHA-256 hashes. ``Frontier`` is the tree while it grows: it holds the roots of
the perfect subtrees that make up a tree of n leaves, largest first (one for each set bit of n), so that appending
costs one hash on average and no history.

Proofs are made from ``RangeHash``, a function that gives the hash of the leaves [start, end), and checked from nothing
but the proof, as RFC 9162 sections 2.1.3.2 and 2.1.4.2 do it.
"""

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Final

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = sha256(b"").digest()

RangeHash = Callable[[int, int], bytes]
"""``MTH(D[start:end])`` of RFC 6962 section 2.1, start < end."""


class ProofProblem(Exception):  # noqa: N818 - what a proof was found to be
    """A proof does not prove what it should."""


def leaf_hash(entry: bytes | memoryview) -> bytes:
    """Return the hash of a leaf whose stored bytes are ``entry``."""
    digest = sha256(b"\x00")
    digest.update(entry)
    return digest.digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of the node above ``left`` and ``right``."""
    return sha256(b"\x01" + left + right).digest()


class Frontier:
    """A tree that grows at its right end."""

    __slots__ = ("_peaks", "size")

    def __init__(self, size: int = 0, peaks: Sequence[bytes] = ()) -> None:
        """``peaks``: the roots of the perfect subtrees of ``size`` leaves, largest first.

        Raises:
            ValueError: they cannot be those of a tree of that size.
        """
        if size < 0 or len(peaks) != size.bit_count() or any(len(peak) != HASH_BYTES for peak in peaks):
            raise ValueError(f"a tree of {size} leaves does not have these {len(peaks)} peaks")
        self.size = size
        self._peaks = list(peaks)

    @property
    def peaks(self) -> tuple[bytes, ...]:
        """The roots of the perfect subtrees, largest first."""
        return tuple(self._peaks)

    def append(self, leaf: bytes) -> None:
        """Add a leaf by its hash."""
        size, peaks = self.size, self._peaks
        self.size = size + 1
        while size & 1:
            leaf = sha256(b"\x01" + peaks.pop() + leaf).digest()
            size >>= 1
        peaks.append(leaf)

    def extend(self, leaves: Sequence[bytes]) -> None:
        """Add leaves by their hashes, a level of the tree at a time: four times as fast as one by one."""
        size, peaks = self.size, self._peaks
        self.size = size + len(leaves)
        level: Sequence[bytes] = leaves
        added: list[bytes] = []  # new peaks, smallest first
        while level:
            if size & 1:
                level = [peaks.pop(), *level]
            if len(level) & 1:
                added.append(level[-1])
            pairs = iter(level)
            level = [sha256(b"\x01" + left + right).digest() for left, right in zip(pairs, pairs, strict=False)]
            size >>= 1
        peaks.extend(reversed(added))

    def copy(self) -> "Frontier":
        """Return the same tree, to grow another way."""
        return Frontier(self.size, self._peaks)

    def root(self) -> bytes:
        """Return the hash of the whole tree."""
        if not self._peaks:
            return EMPTY_ROOT
        *rest, root = self._peaks
        for peak in reversed(rest):
            root = node_hash(peak, root)
        return root


def root_of(leaves: Sequence[bytes]) -> bytes:
    """Return the root of the tree over these leaf hashes."""
    frontier = Frontier()
    for leaf in leaves:
        frontier.append(leaf)
    return frontier.root()


def range_hash_of(leaves: Sequence[bytes]) -> RangeHash:
    """Return the ``RangeHash`` over leaf hashes in memory. Each perfect subtree is computed once and kept."""
    known: dict[tuple[int, int], bytes] = {}

    def range_hash(start: int, end: int) -> bytes:
        if end - start == 1:
            return leaves[start]
        if (found := known.get((start, end))) is not None:
            return found
        split = start + _split(end - start)
        found = node_hash(range_hash(start, split), range_hash(split, end))
        if (end - start).bit_count() == 1:
            known[start, end] = found
        return found

    return range_hash


def inclusion_proof(index: int, size: int, range_hash: RangeHash) -> list[bytes]:
    """Return the audit path of leaf ``index`` in the tree of ``size`` leaves (RFC 6962 section 2.1.1)."""
    assert 0 <= index < size
    proof: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        split = start + _split(end - start)
        if index < split:
            proof.append(range_hash(split, end))
            end = split
        else:
            proof.append(range_hash(start, split))
            start = split
    proof.reverse()
    return proof


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Check that ``leaf`` (a leaf hash) is number ``index`` of the tree of ``size`` leaves with this root.

    Raises: ProofProblem.
    """
    if not 0 <= index < size:
        raise ProofProblem(f"there is no leaf {index} in a tree of {size}")
    node, last = index, size - 1
    found = leaf
    for sibling in proof:
        if last == 0:
            raise ProofProblem("the proof is too long")
        if node & 1 or node == last:
            found = node_hash(sibling, found)
            while not node & 1 and node:
                node >>= 1
                last >>= 1
        else:
            found = node_hash(found, sibling)
        node >>= 1
        last >>= 1
    if last != 0:
        raise ProofProblem("the proof is too short")
    if found != root:
        raise ProofProblem("the proof leads to another root")


def consistency_proof(old: int, new: int, range_hash: RangeHash) -> list[bytes]:
    """Return the proof that the tree of ``new`` leaves begins with that of ``old`` (RFC 6962 section 2.1.2)."""
    assert 0 < old <= new
    proof: list[bytes] = []
    start, end = 0, new
    whole = True  # [start, end) begins where the old tree does, so that its root is known to who has the old one
    while old != end:
        split = start + _split(end - start)
        if old <= split:
            proof.append(range_hash(split, end))
            end = split
        else:
            proof.append(range_hash(start, split))
            start = split
            whole = False
    if not whole:
        proof.append(range_hash(start, end))
    proof.reverse()
    return proof


def verify_consistency(old: int, new: int, proof: Sequence[bytes], old_root: bytes, new_root: bytes) -> None:
    """Check that the tree of ``new`` leaves with ``new_root`` only added to that of ``old`` leaves with ``old_root``.

    Raises: ProofProblem.
    """
    if not 0 <= old <= new:
        raise ProofProblem(f"a tree of {new} leaves cannot go on from one of {old}")
    if old in (0, new):
        if proof:
            raise ProofProblem("the proof is too long")
        if old_root != (EMPTY_ROOT if old == 0 else new_root):
            raise ProofProblem("the trees are of the same size and have different roots")
        return
    steps = list(proof) if old & (old - 1) else [old_root, *proof]
    if not steps:
        raise ProofProblem("the proof is too short")
    node, last = old - 1, new - 1
    while node & 1:
        node >>= 1
        last >>= 1
    old_found = new_found = steps[0]
    for step in steps[1:]:
        if last == 0:
            raise ProofProblem("the proof is too long")
        if node & 1 or node == last:
            old_found = node_hash(step, old_found)
            new_found = node_hash(step, new_found)
            while not node & 1 and node:
                node >>= 1
                last >>= 1
        else:
            new_found = node_hash(new_found, step)
        node >>= 1
        last >>= 1
    if last != 0:
        raise ProofProblem("the proof is too short")
    if old_found != old_root:
        raise ProofProblem("the proof does not begin at the old root")
    if new_found != new_root:
        raise ProofProblem("the proof leads to another root")


def _split(count: int) -> int:
    """Return the largest power of two below ``count``, which is at least 2."""
    return 1 << (count - 1).bit_length() - 1
