"""Settings -> a running proxy: what is opened, in which order, and that all of it is closed again."""

from collections.abc import Callable
from pathlib import Path

import attrs
import trio

from xproxy.config.address import HostPort
from xproxy.config.settings import Settings
from xproxy.events import Endpoint


@attrs.frozen(kw_only=True)
class Running:
    """A proxy that listens. What ``run`` reports when it has started."""

    listeners: tuple[Endpoint, ...]  # real addresses, port 0 resolved
    upstream: HostPort
    ca_file: Path | None  # the local CA's certificate; None with the server's own files
    log_file: Path | None  # None: records go to standard output only
    stop: Callable[[str], None]  # drain with this reason ("finished"); called again: at once. ``run`` returns after it


async def run(
    settings: Settings,
    *,
    reread: Callable[[], Settings] | None = None,
    signals: bool = False,
    task_status: trio.TaskStatus[Running] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run the proxy until it is told to stop, by ``Running.stop``, by a signal if ``signals``, or by cancellation.

    ``reread`` returns the settings anew on SIGHUP; without it only certificates and the log file are opened again.

    Raises:
        XproxyError: the settings cannot be put to work on this machine; nothing is left open.
    """
    raise NotImplementedError
