"""What the kernel accounts to a process and its children: processor time, memory, descriptors."""

import time
from collections.abc import Iterator
from pathlib import Path

_CPUCLOCK_SCHED = 2  # clock_getcpuclockid(3): all threads of a process, also those that have ended, in ns


def family(pid: int) -> Iterator[int]:
    """Yield ``pid`` and its descendants that live."""
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from family(int(child))


def cpu_ns(pid: int) -> int:
    """Return the processor time of the family so far."""
    return sum(time.clock_gettime_ns((~one << 3) | _CPUCLOCK_SCHED) for one in family(pid))


def memory_bytes(pid: int) -> int:
    """Return the memory of the family: what is shared with others counts in part (PSS)."""
    return sum(_kib(one, "Pss:") for one in family(pid)) * 1024


def own_memory_bytes(pid: int) -> int:
    """Return the memory that the family made for itself, heaps and stacks.

    Pages of programs and libraries are left out: how much of them counts depends on who else runs the same just now.
    """
    return sum(_kib(one, "Anonymous:") for one in family(pid)) * 1024


def _kib(pid: int, what: str) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(what):
            return int(line.split()[1])
    raise AssertionError(f"smaps_rollup has a line {what}")


def descriptors(pid: int) -> int:
    """Return how many descriptors the family has open."""
    return sum(len(list(Path(f"/proc/{one}/fd").iterdir())) for one in family(pid))


def threads(pid: int) -> int:
    """Return how many threads the family has."""
    return sum(len(list(Path(f"/proc/{one}/task").iterdir())) for one in family(pid))
