"""What the machine allows: open files, room on the disk, and a clock that can be believed."""

import ctypes
import os
import resource
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from xproxy.check.finding import Finding, fine, problem, unknown, warning
from xproxy.config.check import Place
from xproxy.config.sessions import DESCRIPTORS_OWN
from xproxy.config.settings import Settings
from xproxy.errors import FileProblem
from xproxy.journal.reader import StreamReader, journal_directory, stream_places
from xproxy.journal.room import BALLAST_ROOM, MARKS_PERCENT
from xproxy.journal.storage import Space

SEGMENTS_ROOM: Final = 4  # the disk should hold this many full segments: four hours at the default pace
CLOCK_SLACK_NS: Final = 2_000_000_000  # two proxies one after the other, a clock that is being steered
BUILT: Final = datetime(2025, 1, 1, tzinfo=UTC)  # no clock is right that is before this program
AHEAD_DAYS: Final = 400  # the newest record is older than this: it stood still, or the clock runs ahead

_STA_UNSYNC: Final = 0x0040  # <linux/timex.h>
_NS_PER_DAY: Final = 86_400_000_000_000


# Limits -------------------------------------------------------------------------------------------------------------


def check_descriptors(settings: Settings, place: Place, limits: tuple[int, int] | None = None) -> Iterator[Finding]:
    """Yield whether the sessions that are allowed fit into open files. ``limits``: soft and hard; this process's."""
    hard = (limits or resource.getrlimit(resource.RLIMIT_NOFILE))[1]
    where = place("sessions", "sessions_max")
    wanted = settings.sessions.sessions_max
    fit = max(0, hard - DESCRIPTORS_OWN) // 2
    if hard == resource.RLIM_INFINITY or fit >= wanted:
        yield fine("limits", where, f"{wanted} sessions fit into the limit of open files")
    else:
        yield warning(
            "limits", where, f"{hard} open files allow {fit} sessions, sessions_max is {wanted}",
            f"LimitNOFILE={2 * wanted + DESCRIPTORS_OWN} in the unit (a shell: ulimit -Hn), or write "
            f"sessions_max = {max(1, fit)} in [sessions]",
        )  # fmt: skip


def check_disk(settings: Settings, place: Place) -> Iterator[Finding]:
    """Yield whether the journal has room."""
    state = settings.state.directory.absolute()
    directory = next((each for each in (state, *state.parents) if os.path.isdir(each)), Path("/"))
    try:
        status = os.statvfs(directory)
    except OSError as error:
        yield unknown("limits", place("state", "directory"), f"the room at {directory} is not known: {error.strerror}")
        return
    space = Space(total_bytes=status.f_blocks * status.f_frsize, free_bytes=status.f_bavail * status.f_frsize)
    yield from room_findings(space, status.f_favail if status.f_files else None, settings, place)


def room_findings(space: Space, inodes: int | None, settings: Settings, place: Place) -> Iterator[Finding]:
    """Yield what ``space`` and ``inodes`` (None: there is no such count) mean for the journal."""
    journal = settings.journal
    where = place("state", "directory")
    free = space.free_bytes
    least = journal.segment_bytes_max + journal.ballast_bytes
    if free < least or (inodes is not None and inodes < 16):
        left = f"{_mebibytes(free)} are" if free < least else f"{inodes} files are"
        yield problem(
            "limits", where, f"the disk of the state directory is full: {left} left, the journal needs at least "
            f"{_mebibytes(least)}", "make room, or choose another disk with --state DIR",
        )  # fmt: skip
        return
    if journal.ballast_bytes and free < BALLAST_ROOM * journal.ballast_bytes:
        yield warning(
            "limits", place("journal", "ballast_bytes"),
            f"with {_mebibytes(free)} free no room is kept aside for the end ({BALLAST_ROOM} times ballast_bytes is)",
            f"make room, or write ballast_bytes = {free // BALLAST_ROOM} in [journal]",
        )  # fmt: skip
    if free < SEGMENTS_ROOM * journal.segment_bytes_max:
        yield warning(
            "limits", place("journal", "segment_bytes_max"),
            f"{_mebibytes(free)} are free: {free // journal.segment_bytes_max} full segments of the journal",
            "make room; xproxy log stats says how fast it grows",
        )  # fmt: skip
    if space.used_percent >= MARKS_PERCENT[0]:
        yield warning("limits", where, f"the disk of the state directory is {space.used_percent:.0f} % full",
                      "make room: a full disk is a log with a gap")  # fmt: skip
    else:
        yield fine("limits", where, f"{_mebibytes(free)} are free for the journal")


def _mebibytes(octets: int) -> str:
    return f"{octets / 1_048_576:,.0f} MiB"


# The clock ----------------------------------------------------------------------------------------------------------


def check_clock(now_ns: int) -> Iterator[Finding]:
    """Yield whether the times in the log can be right."""
    now = datetime.fromtimestamp(now_ns / 1e9, UTC)
    if now < BUILT:
        yield problem("clock", "clock", f"the clock says {now:%Y-%m-%d %H:%M}, which is before xproxy was made",
                      "set it: timedatectl set-ntp true, or date -u -s ...")  # fmt: skip
        return
    synchronised = is_synchronised()
    if synchronised is None:
        yield unknown("clock", "clock", "whether the clock is kept right by NTP cannot be seen here")
    elif synchronised:
        yield fine("clock", "clock", "the clock is kept right by NTP")
    else:
        yield warning("clock", "clock", "the clock is not kept right by NTP: times in the log are as good as it is",
                      "install chrony or systemd-timesyncd; in a container this is the host's business")  # fmt: skip


def check_journal_times(settings: Settings, now_ns: int) -> Iterator[Finding]:
    """Yield whether the journal's newest record can be of the past."""
    newest = newest_entry_ns(settings.state.directory)
    if newest is None or datetime.fromtimestamp(now_ns / 1e9, UTC) < BUILT:
        return
    text = f"{datetime.fromtimestamp(newest / 1e9, UTC):%Y-%m-%d %H:%M:%S} UTC"
    ahead = newest - now_ns
    if ahead > CLOCK_SLACK_NS:
        yield problem(
            "clock", "clock", f"the clock is {_span(ahead)} behind the newest record of the journal ({text})",
            "set it right; if the journal's time was wrong, its new records will seem to come before the old",
        )  # fmt: skip
    elif -ahead > AHEAD_DAYS * _NS_PER_DAY:
        yield warning("clock", "clock", f"the newest record of the journal is {_span(-ahead)} old ({text})",
                      "see whether the clock runs ahead")  # fmt: skip
    else:
        yield fine("clock", "clock", f"the clock is {_span(-ahead)} ahead of the newest record of the journal")


def newest_entry_ns(state: Path) -> int | None:
    """Return the time of the newest durable entry of the journal; None: there is none that can be read."""
    newest: int | None = None
    try:
        for place in stream_places(journal_directory(state)):
            with StreamReader(place.path) as reader:
                durable = reader.refresh()
                if durable and (read := reader.read(durable - 1, 1)):
                    newest = max(newest or 0, read[-1].time_ns)
    except (FileProblem, OSError):
        return newest
    return newest


class _Timex(ctypes.Structure):
    """struct timex of adjtimex(2), as far as it is read; room for the rest."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_char * 512),
    )


def is_synchronised() -> bool | None:
    """Return whether the kernel says that somebody keeps the clock right (adjtimex(2)); None: it does not say."""
    try:
        library = ctypes.CDLL(None, use_errno=True)
        timex = _Timex(modes=0)  # 0: only look
        if library.adjtimex(ctypes.byref(timex)) < 0:
            return None
    except (AttributeError, OSError):
        return None
    return not timex.status & _STA_UNSYNC


def _span(ns: int) -> str:
    seconds = ns // 1_000_000_000
    for name, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if (count := seconds // length) > 0:
            return f"{count} {name}{'' if count == 1 else 's'}"
    return f"{seconds} second{'' if seconds == 1 else 's'}"
