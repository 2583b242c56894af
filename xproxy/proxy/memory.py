"""The memory of the core on disk: what a server offered and how users logged in before the proxy was started anew.

Losing it costs the comparison with what was before, nothing else: a file that cannot be read is said and begun anew, a
file that cannot be written is said and tried again.
"""

import logging
from pathlib import Path
from typing import Final

import orjson

from xproxy.errors import FileProblem
from xproxy.tls.files import write_file
from xproxy.xmpp.memory import Memory

log = logging.getLogger(__name__)

NAME: Final = "memory.json"
SAVE_SECONDS: Final = 300.0  # what a crash may forget


def load_memory(directory: Path) -> Memory:
    """Return what ``directory`` remembers; an empty memory where there is nothing, or nothing that can be read."""
    memory = Memory()
    path = directory / NAME
    try:
        memory.load(orjson.loads(path.read_bytes()))
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:  # orjson's error is a ValueError
        reason = error.strerror if isinstance(error, OSError) else "it is damaged or of another version"
        log.warning("%s cannot be read (%s): what it remembered of servers and logins is lost", path, reason)
    return memory


def save_memory(memory: Memory, directory: Path) -> None:
    """Write ``memory`` into ``directory``, at once and whole."""
    try:
        write_file(directory / NAME, orjson.dumps(memory.dump(), option=orjson.OPT_SORT_KEYS), mode=0o600)
    except FileProblem as problem:
        log.warning("%s; downgrades are not seen over a restart until it can", problem)
