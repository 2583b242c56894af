"""[log] -> the outputs it asks for, open and served; at the end all is written out and closed."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from xproxy.config.log import LogSettings
from xproxy.config.upstream import UpstreamAddress
from xproxy.errors import EnvironmentProblem
from xproxy.events import Level
from xproxy.events.journal import JournalCheckpoint
from xproxy.log.channel import Output, OutputGone, RecordChannel
from xproxy.log.filters import LevelFilter
from xproxy.log.jsonl import STANDARD_OUTPUT, JsonLinesFile
from xproxy.log.view import HumanView
from xproxy.log.watch import UpstreamWatch


@contextmanager
def open_log(
    settings: LogSettings,
    levels: LevelFilter,
    upstream: UpstreamAddress,
    on_gone: Callable[[], None],
    *,
    listed: frozenset[str] | None = None,
) -> Iterator[RecordChannel]:
    """Open the outputs and start their writer; at the end everything is written out and closed.

    ``on_gone`` is called when an output is gone for ever: the block is to end. ``listed``: as ``UpstreamWatch``.

    Raises:
        FileProblem: the file cannot be opened.
        EnvironmentProblem: at the end, when records could not be written.
    """
    gone: list[OutputGone] = []

    def give_up(problem: OutputGone) -> None:
        gone.append(problem)
        on_gone()

    with ExitStack() as stack:
        channel = RecordChannel(records_max=settings.records_max, on_fatal=give_up)
        for output in open_outputs(settings):
            stack.callback(output.close)
            channel.add_output(output, levels)
        channel.add_output(UpstreamWatch(upstream, listed), LevelFilter(Level.INFO))
        channel.start()
        stack.pop_all()  # from here on the channel closes them
    try:
        yield channel
    except BaseException:
        channel.close()
        raise
    lost = channel.close()
    if gone:
        raise gone[0]
    if lost:
        raise EnvironmentProblem(
            f"{lost} records could not be written to {settings.path or 'standard output'}",
            "they are lost; see what was said about it above",
        )


def open_outputs(settings: LogSettings) -> Iterator[Output]:
    """Yield what ``[log]`` asks for: standard output or the file, and the view for people."""
    is_terminal = sys.stdout.isatty()
    human = settings.format == "human" or (settings.format == "auto" and is_terminal)
    if settings.path is not None or not human:
        yield JsonLinesFile(settings.path or STANDARD_OUTPUT)
    if human:
        yield HumanView(unshown=(JournalCheckpoint.action,))  # a heartbeat tells a person nothing
