"""Room on the disk: how full it is, and the ballast that is given up when it is full."""

import logging
from contextlib import suppress
from pathlib import Path
from typing import Final

from xproxy.journal.format import BALLAST_FILE
from xproxy.journal.storage import Storage

MARKS_PERCENT: Final = (85, 90, 95)  # a record at each
NEARLY_FULL_PERCENT: Final = 90  # above it, debug records are not written
BALLAST_ROOM: Final = 4  # the ballast is made where this many times its size is free

logger = logging.getLogger(__name__)


class Room:
    """The disk of one journal."""

    def __init__(self, storage: Storage, directory: Path, ballast_bytes: int) -> None:
        self._storage = storage
        self._directory = directory
        self._ballast_bytes = ballast_bytes
        self._mark = 0  # the last one that was told
        self.has_ballast = False
        self.is_nearly_full = False

    def look(self) -> int | None:
        """Look how full the disk is; return a mark that was reached and not told yet."""
        try:
            percent = self._storage.space(self._directory).used_percent
        except OSError:
            return None
        self.is_nearly_full = percent >= NEARLY_FULL_PERCENT
        reached = max((mark for mark in MARKS_PERCENT if percent >= mark), default=0)
        if reached > self._mark:
            self._mark = reached
            logger.warning("the disk of the journal %s is %d %% full", self._directory, percent)
            return reached
        if percent < self._mark - 1:  # no flutter at the mark
            self._mark = reached
        return None

    def make_ballast(self) -> None:
        """Make the ballast, if there is room for it and it is not there."""
        if self.has_ballast:
            return
        size = self._ballast_bytes
        path = self._directory / BALLAST_FILE
        try:
            if BALLAST_FILE in self._storage.names(self._directory):
                self.has_ballast = True
                return
            if size == 0 or self._storage.space(self._directory).free_bytes < BALLAST_ROOM * size:
                return
            file = self._storage.create(path)
            try:
                file.allocate(0, size)
                file.sync()
                self.has_ballast = True
            finally:
                file.close()
                if not self.has_ballast:
                    self._storage.remove(path)
        except OSError as error:
            logger.warning("no room could be kept for a full disk: %s", error)

    def drop_ballast(self) -> bool:
        """Give it up; return whether there was any."""
        if not self.has_ballast:
            return False
        self.has_ballast = False
        with suppress(OSError):
            self._storage.remove(self._directory / BALLAST_FILE)
            self._storage.sync_directory(self._directory)
            logger.error("the disk of the journal %s is full: the room kept for this was given up", self._directory)
        return True
