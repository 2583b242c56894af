"""Counters and answers of stream management."""

import pytest
from lxml import etree

from xproxy.events import Event, Side
from xproxy.events.session import SessionResumed, SessionResumeFailed, SmAnomaly, SmEnabled
from xproxy.xmpp.sm import StreamManagement, unsigned


class Sent:
    """A side that has sent so many stanzas."""

    def __init__(self) -> None:
        self.stanzas = 0


class Managed:
    """A dialogue whose stanza counts the test sets."""

    def __init__(self) -> None:
        self.by_client, self.by_server = Sent(), Sent()
        self.sm = StreamManagement(key=b"k", client=self.by_client, server=self.by_server)

    def sent(self, *, client: int, server: int) -> None:
        self.by_client.stanzas, self.by_server.stanzas = client, server

    def client(self, xml: str, at_ns: int = 0) -> list[Event]:
        element = etree.fromstring(xml)
        return self.sm.from_client(element.tag, element, at_ns)

    def server(self, xml: str, at_ns: int = 0) -> list[Event]:
        element = etree.fromstring(xml)
        return self.sm.from_server(element.tag, element, at_ns, before_tls=False)


def test_counting_begins_at_enable_and_enabled() -> None:
    talk = Managed()
    talk.sent(client=3, server=2)
    talk.client("<enable/>")
    talk.server("<enabled/>")
    assert talk.server("<a h='0'/>") == []
    assert talk.client("<a h='1'/>") == [
        SmAnomaly(sent_by=Side.CLIENT, kind="handled-count-too-high", handled=1, sent=0)
    ]
    talk.sent(client=4, server=3)
    assert talk.client("<a h='1'/>") + talk.server("<a h='1'/>") == []


def test_counters_wrap() -> None:
    talk = Managed()
    talk.client("<resume previd='p' h='4294967295'/>")
    talk.server("<resumed previd='p' h='4294967295'/>")
    talk.sent(client=2, server=2)
    assert talk.client("<a h='1'/>") + talk.server("<a h='1'/>") == []
    assert [event.action for event in talk.server("<a h='2'/>")] == ["sm-anomaly"]


def test_an_id_counts_only_where_resumption_is_granted() -> None:
    talk = Managed()
    talk.client("<enable/>")
    assert talk.server("<enabled id='x'/>") == [
        SmEnabled(id_hash=None, resumable=False, max_seconds=None, has_location=False)
    ]


@pytest.mark.parametrize("xml", ["<enabled/>", "<resumed h='1'/>", "<failed/>"])
def test_an_answer_nobody_asked_for(xml: str) -> None:
    (first, *_) = Managed().server(xml)
    assert isinstance(first, SmAnomaly)
    assert first.kind == "unexpected-answer"


def test_a_resumption_takes_time_and_carries_both_counts() -> None:
    talk = Managed()
    talk.client("<resume previd='p' h='4'/>", at_ns=10)
    (event,) = talk.server("<resumed previd='p' h='9'/>", at_ns=25)
    assert isinstance(event, SessionResumed)
    assert (event.client_handled, event.server_handled, event.duration_ns) == (4, 9, 15)
    assert talk.sm.resumed


def test_a_refused_enable_and_a_refused_resume_are_told_apart() -> None:
    talk = Managed()
    talk.client("<enable/>")
    failed = "<failed h='3'><!-- --><text/><unexpected-request xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>"
    (event,) = talk.server(failed)
    assert isinstance(event, SmAnomaly)
    assert (event.kind, event.condition) == ("enable-failed", "unexpected-request")
    talk.client("<resume previd='p' h='0'/>")
    (event,) = talk.server(failed)
    assert isinstance(event, SessionResumeFailed)
    assert (event.condition, event.server_handled) == ("unexpected-request", 3)


def test_requests_for_acknowledgement_and_strangers_say_nothing() -> None:
    talk = Managed()
    assert talk.client("<r/>") + talk.server("<r/>") + talk.client("<a h='7'/>") == []


@pytest.mark.parametrize("h", ["", "-1", "x", "4294967296", "1" * 17])
def test_an_h_that_is_no_count(h: str) -> None:
    (event,) = Managed().client(f"<a h='{h}'/>")
    assert isinstance(event, SmAnomaly)
    assert event.kind == "h-invalid"


@pytest.mark.parametrize(
    ("text", "want"), [(None, None), ("0", 0), (" 7 ", 7), ("４", None), ("4294967295", 2**32 - 1)]
)
def test_unsigned(text: str | None, want: int | None) -> None:
    assert unsigned(text) == want
