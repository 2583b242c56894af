"""A log as tlog-tiles (C2SP tlog-tiles v0.1.0): files that others' programs verify, Go's x/mod/sumdb among them.

    DIR/checkpoint                the newest signed note that covers what is exported
    DIR/tile/<L>/<N>              256 hashes of level 8 L: the leaves themselves at level 0, roots of tiles above
    DIR/tile/entries/<N>          the 256 entries of tile <N> of level 0, each after its length (u16, big-endian)
    .../<N>.p/<W>                 instead of the last, if it has only W < 256 of them

<N> is in groups of three digits, all but the last after an "x": 1234067 is x001/x234/067. The entries are the stored
bytes, exactly what the journal's leaves are hashes of. Only what a checkpoint covers is exported: what no key has
signed proves nothing.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from xproxy.journal.tree import Frontier, leaf_hash, root_of

TILE_WIDTH: Final = 256
ENTRY_BYTES_MAX: Final = 65_535  # of a u16
CHECKPOINT_FILE: Final = "checkpoint"


def tile_path(level: int | str, number: int, width: int = TILE_WIDTH) -> str:
    """Return the path of a tile below the export's directory. ``level``: a number, or "entries"."""
    groups = [f"{number % 1000:03d}"]
    while number := number // 1000:
        groups.append(f"x{number % 1000:03d}")
    path = f"tile/{level}/{'/'.join(reversed(groups))}"
    return path if width == TILE_WIDTH else f"{path}.p/{width}"


class TileWriter:
    """Writes a tree's tiles, entry by entry from the first. The directory must not hold an export yet."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._entries: list[bytes] = []  # those of the bundle that is not full
        self._levels: list[list[bytes]] = []  # the hashes of the tile that is not full, level by level
        self._bundle_count = 0
        self._tile_counts: list[int] = []
        self._tree = Frontier()

    @property
    def size(self) -> int:
        """How many entries were added."""
        return self._tree.size

    def add(self, entries: Iterable[bytes]) -> None:
        """Add the next entries. Raises: OSError; ValueError: one is too long for the format."""
        for entry in entries:
            if len(entry) > ENTRY_BYTES_MAX:
                raise ValueError(f"entry {self.size} of {len(entry)} bytes is too long for a tile")
            self._entries.append(entry)
            if len(self._entries) == TILE_WIDTH:
                self._write("entries", self._bundle_count, _bundle(self._entries), TILE_WIDTH)
                self._bundle_count += 1
                self._entries = []
            leaf = leaf_hash(entry)
            self._tree.append(leaf)
            self._add_hash(0, leaf)

    def finish(self, checkpoint: bytes) -> None:
        """Write the tiles that are not full, and ``checkpoint`` last: an export that has one is whole.

        Raises: OSError.
        """
        if self._entries:
            width = len(self._entries)
            self._write("entries", self._bundle_count, _bundle(self._entries), width)
        for level, hashes in enumerate(self._levels):
            if hashes:
                self._write(level, self._tile_counts[level], b"".join(hashes), len(hashes))
        self._directory.mkdir(parents=True, exist_ok=True)
        (self._directory / CHECKPOINT_FILE).write_bytes(checkpoint)

    def root(self) -> bytes:
        """Return the root of what was added: what the checkpoint must say."""
        return self._tree.root()

    def _add_hash(self, level: int, value: bytes) -> None:
        if level == len(self._levels):
            self._levels.append([])
            self._tile_counts.append(0)
        hashes = self._levels[level]
        hashes.append(value)
        if len(hashes) == TILE_WIDTH:
            self._write(level, self._tile_counts[level], b"".join(hashes), TILE_WIDTH)
            self._tile_counts[level] += 1
            above = root_of(hashes)
            self._levels[level] = []
            self._add_hash(level + 1, above)

    def _write(self, level: int | str, number: int, data: bytes, width: int) -> None:
        path = self._directory / tile_path(level, number, width)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _bundle(entries: list[bytes]) -> bytes:
    return b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)
