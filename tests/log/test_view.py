import io
import threading

import attrs
import pytest
from rich.console import Console

from tests.support.samples import FULL, SAMPLES
from xproxy.events import EVENT_TYPES, Side
from xproxy.events.sasl import SaslFailed, SaslStarted
from xproxy.events.stanza import StanzaError
from xproxy.events.stream import StreamError
from xproxy.log.channel import OutputGone
from xproxy.log.view import HumanView, render
from xproxy.record.identities import Identities, IdentityKey
from xproxy.record.recorder import Observer, ProxyRecorder, SessionRecorder

OBSERVER = Observer(version="0.1.0", hostname="gw1", boot_id="b" * 32)
AT_NS = 1_700_000_000_123_456_789


def sample(event_type, **changes):
    return attrs.evolve(next(event for event in FULL if isinstance(event, event_type)), **changes)


def console(width=100, *, terminal=True, file=None):
    return Console(
        file=file or io.StringIO(), width=width, force_terminal=terminal, color_system=None, legacy_windows=False
    )


def line(*events, width=100, terminal=True):
    recorder = SessionRecorder(trace_id="3f2a1b" + "0" * 26, observer=OBSERVER)
    records = [recorder.record(event, AT_NS) for event in events]
    return render(records[-1], console(width, terminal=terminal)).plain


def records(count):
    recorder = ProxyRecorder(observer=OBSERVER)
    return [recorder.record(event, AT_NS) for event in (FULL * (count // len(FULL) + 1))[:count]]


def test_a_failed_login():
    failed = sample(SaslFailed, text=None, cause=None)
    assert line(sample(SaslStarted), failed) == (
        "22:13:20.123 W sasl-failed              3f2a1b romeo@example.org?  SCRAM-SHA-256-PLUS, \n"
        "                                               not-authorized, 9.9 ms"
    )


def test_a_stanza_error_shows_its_skeleton():
    shown = line(sample(StanzaError), terminal=False)
    assert "← iq error [query error] nobody@example.org: service-unavailable (cancel) from the server" in shown
    assert "answers get query 12 ms old, <iq type='error' id=4" in shown


@pytest.mark.parametrize("event", SAMPLES.values(), ids=SAMPLES.keys())
@pytest.mark.parametrize("width", [40, 100])
def test_every_event_has_a_readable_line(event, width):
    shown = line(event, width=width)
    first, *rest = shown.splitlines()
    assert event.action in first
    assert "None" not in shown
    assert "  ," not in shown
    if width == 100:
        assert all(len(part.rstrip()) <= width for part in (first, *rest))
        assert all(part.startswith(" " * 47) for part in rest)


@pytest.mark.parametrize("mode", ["pseudonym", "omit"])
@pytest.mark.parametrize("event", SAMPLES.values(), ids=SAMPLES.keys())
def test_every_event_has_a_readable_line_without_its_identities(event, mode):
    identities = Identities(mode, IdentityKey("2023-11", b"k" * 32))
    recorder = SessionRecorder(trace_id="3f2a1b" + "0" * 26, observer=OBSERVER, identities=identities)
    shown = render(recorder.record(event, AT_NS), console(terminal=False)).plain
    assert "None" not in shown
    assert "  ," not in shown
    assert "romeo" not in shown
    assert "192.0.2.7" not in shown


@pytest.mark.parametrize("event_type", EVENT_TYPES, ids=lambda event_type: event_type.action)
def test_no_event_falls_back_to_its_sentence(event_type):
    # A new action works without a line of its own in the view; those we know say more.
    assert event_type.message not in line(sample(event_type), terminal=False)


def test_elsewhere_than_on_a_terminal_a_line_is_one_line():
    assert "\n" not in line(sample(StanzaError), terminal=False)


def test_markup_and_control_of_a_peer_are_shown_not_obeyed():
    file = io.StringIO()
    view = HumanView(console(file=file))
    recorder = SessionRecorder(trace_id="a" * 32, observer=OBSERVER)
    text = "[red]:boom:[/red] \x1b[2J\u202e"
    view.take([recorder.record(sample(StreamError, text=text, sent_by=Side.SERVER), AT_NS)])
    view.close()
    shown = " ".join(file.getvalue().split())
    assert "[red]:boom:[/red] \\u{1b}[2J\\u{202e}" in shown
    assert "\x1b[2J" not in file.getvalue()


def test_everything_is_shown_when_there_is_time():
    file = io.StringIO()
    view = HumanView(console(file=file, width=10_000))
    view.take(records(50))
    view.flush()
    view.close()
    assert len(file.getvalue().splitlines()) == 50


class SlowTerminal(io.StringIO):
    """Takes the first line only when allowed."""

    def __init__(self):
        super().__init__()
        self.is_reached = threading.Event()
        self.may_write = threading.Event()

    def write(self, text):
        self.is_reached.set()
        assert self.may_write.wait(5)
        return super().write(text)


def test_a_slow_terminal_holds_up_nothing_and_is_told_what_it_missed():
    file = SlowTerminal()
    view = HumanView(console(file=file, width=10_000), waiting_max=10)
    made = records(331)
    view.take(made[:1])
    assert file.is_reached.wait(5)
    view.take(made[1:100])  # returns although the terminal takes nothing
    view.take(made[100:])
    view.flush()
    file.may_write.set()
    view.close()
    shown = file.getvalue().splitlines()
    assert len(shown) == 12
    assert shown[1] == "320 records not shown"
    assert made[-1].action in shown[-1]


class BrokenTerminal(io.StringIO):
    def __init__(self, problem):
        super().__init__()
        self.problem = problem

    def write(self, text):
        raise self.problem


def test_a_terminal_that_is_gone_is_reported():
    view = HumanView(console(file=BrokenTerminal(OSError(5, "Input/output error"))))
    view.take(records(1))
    view.close()
    with pytest.raises(OutputGone, match="the terminal: Input/output error"):
        view.flush()
