"""Runs xproxy as its command does, and writes what only the process itself knows to a file when it gets SIGUSR1.

    python bench/watched.py FILE run --upstream ...

The file then holds one JSON object: how many names the XML parser keeps, trio's tasks, objects the collector knows of,
and how much of the C heap is in use (glibc's mallinfo2: what a process has from the system depends on where holes are).
"""

import ctypes
import gc
import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import trio
from lxml import etree

from xproxy.__main__ import main

DEADLINES_KEPT_MAX = 5_000
"""More than trio keeps of those that are over: 1 000 and as many as are in force."""


def _tasks(task: trio.lowlevel.Task | None) -> Iterator[trio.lowlevel.Task]:
    if task is not None:
        yield task
        for nursery in task.child_nurseries:
            for child in nursery.child_tasks:
                yield from _tasks(child)


class _MallInfo(ctypes.Structure):  # mallinfo(3)
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in [
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        ]
    ]


def _heap_bytes() -> int:
    mallinfo2 = ctypes.CDLL(None).mallinfo2
    mallinfo2.restype = _MallInfo
    found = mallinfo2()
    return int(found.uordblks + found.hblkhd)


async def _drop_old_deadlines() -> None:
    """Have trio let go of the deadlines of cancel scopes that have ended: it keeps a thousand, then drops all at once.

    With them the count of objects would swing by two thousand, whatever the moment one happens to look.
    """
    for _ in range(DEADLINES_KEPT_MAX):
        with trio.move_on_after(3_600):  # noqa: ASYNC100 - over before trio looks at it
            pass
    await trio.lowlevel.checkpoint()  # it sees to deadlines between two turns


async def _look(path: Path) -> None:
    await _drop_old_deadlines()
    gc.collect()
    seen = {
        "names": etree.memory_debugger.dict_size(),  # of this thread, which is the one that parses
        "tasks": sum(1 for _ in _tasks(trio.lowlevel.current_root_task())),
        "objects": len(gc.get_objects()),
        "heap_mib": _heap_bytes() / 1_048_576,
    }
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(seen))
    partial.rename(path)


def _look_soon(path: Path) -> None:
    """From a signal handler: look from a task of trio's, between two turns of the relay."""
    trio.lowlevel.current_trio_token().run_sync_soon(trio.lowlevel.spawn_system_task, _look, path)


if __name__ == "__main__":
    target = Path(sys.argv.pop(1))
    signal.signal(signal.SIGUSR1, lambda *_: _look_soon(target))
    main()
