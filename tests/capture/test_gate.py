"""Which sessions get a file, and what is in it."""

import ipaddress
from pathlib import Path

import pytest

from tests.support.taping import Disk, TapedSession
from xproxy.capture.gate import Wanted
from xproxy.capture.service import LAST_BYTES
from xproxy.capture.trace import Closed, Conn, Gap, Lost, TraceSession, read_sessions
from xproxy.events import Endpoint, Side

C, S = Side.CLIENT, Side.SERVER
FAILURE = "<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><not-authorized/></failure>"


def written(session: TapedSession, tmp_path: Path) -> TraceSession | None:
    if not session.capture():
        return None
    file = tmp_path / "x.xcap.jsonl"
    file.write_bytes(session.capture())
    (found,) = read_sessions(file)
    return found


def chat(session: TapedSession, count: int = 5) -> TapedSession:
    for number in range(count):
        session.say(C, f"<message id='{number}'><body>hello</body></message>")
    return session


def test_without_filters_everything_is_written_at_once(tmp_path: Path) -> None:
    session = chat(TapedSession().log_in())
    assert session.capture().count(b"\n") > 15  # while it goes on
    found = written(session.finish(), tmp_path)
    assert found is not None
    assert found.is_whole
    assert session.disk.over == 1
    assert session.disk.kept == 0


@pytest.mark.parametrize(
    ("jid", "captured"), [("juliet@example.org", True), ("romeo@example.org", False), ("example.org", False)]
)
def test_an_account_is_known_later_and_its_session_is_whole_all_the_same(
    jid: str, captured: bool, tmp_path: Path
) -> None:
    session = chat(TapedSession(wanted=Wanted(jid=jid)).log_in()).finish()
    found = written(session, tmp_path)
    assert (found is not None) is captured
    assert found is None or found.is_whole
    assert session.disk.kept == 0


def test_a_claim_is_enough_for_a_login_that_fails_is_what_one_looks_for(tmp_path: Path) -> None:
    session = TapedSession(wanted=Wanted(jid="juliet@example.org"))
    for side, text in [
        (C, "<stream:stream to='example.org' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"),
        (C, "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AGp1bGlldAB4</auth>"),
    ]:
        session.say(side, text)
    assert session.capture()
    assert written(session.finish(), tmp_path) is not None


@pytest.mark.parametrize(
    ("net", "ip", "captured"),
    [("192.0.2.0/24", "192.0.2.7", True), ("192.0.2.0/24", "198.51.100.7", False),
     ("2001:db8::/32", "2001:db8::7", True), ("192.0.2.0/24", "2001:db8::7", False)],
)  # fmt: skip
def test_a_network_is_known_at_once(net: str, ip: str, captured: bool, tmp_path: Path) -> None:
    session = TapedSession(wanted=Wanted(net=ipaddress.ip_network(net)), client=Endpoint(ip, 50_000))
    assert session.tape.is_off is not captured
    assert (written(session.log_in().finish(), tmp_path) is not None) is captured


def test_an_event_brings_what_came_before_it(tmp_path: Path) -> None:
    session = chat(TapedSession(wanted=Wanted(actions=frozenset({"stanza-error"}))).log_in())
    assert session.capture() == b""
    session.say(S, "<message type='error' from='example.org'><error type='cancel'/></message>")
    assert session.capture()
    found = written(chat(session).finish(), tmp_path)
    assert found is not None
    assert found.is_whole
    assert written(chat(TapedSession(wanted=Wanted(actions=frozenset({"stanza-error"})))).finish(), tmp_path) is None


def test_both_filters_must_hold(tmp_path: Path) -> None:
    wanted = Wanted(jid="romeo@example.org", actions=frozenset({"resource-bound"}))
    assert written(TapedSession(wanted=wanted).log_in().finish(), tmp_path) is None


def test_a_full_ring_loses_its_oldest_lines_but_the_first(tmp_path: Path) -> None:
    wanted = Wanted(actions=frozenset({"stanza-error"}))
    session = chat(TapedSession(wanted=wanted, ring_bytes=4_096).log_in(), 200)
    session.say(S, "<message type='error' from='example.org'><error type='cancel'/></message>")
    assert session.disk.kept == 0
    found = written(session.finish(), tmp_path)
    assert found is not None
    first = found.lines[0]
    assert isinstance(found.conn, Conn)
    assert isinstance(first, Gap)
    assert first.lines == first.n - 1 > 150
    assert first.bytes > 20_000
    assert isinstance(found.lines[-1], Closed)
    assert not found.is_whole


def test_all_rings_together_have_a_limit() -> None:
    disk = Disk(rings_max=3_000)
    session = chat(TapedSession(wanted=Wanted(actions=frozenset({"iq-timeout"})), disk=disk).log_in(), 100)
    assert disk.kept <= 3_000
    session.finish()
    assert disk.kept == 0


def test_a_file_has_a_limit_and_the_session_goes_on(tmp_path: Path) -> None:
    session = chat(TapedSession(session_bytes_max=6_000).log_in(), 50)
    assert session.disk.cut == ["capture.session_bytes_max"]
    assert session.tape.is_off
    before = len(session.forwarded[C])
    chat(session, 1)
    assert len(session.forwarded[C]) > before
    found = written(session.finish(), tmp_path)
    assert found is not None
    assert isinstance(found.lines[-1], Lost)
    assert found.lines[-1].why == "session-limit"


@pytest.mark.parametrize("limit", ["session_bytes_max", "room"])
def test_wherever_a_limit_falls_the_file_is_whole_and_says_that_it_ends(limit: str, tmp_path: Path) -> None:
    begun = len(TapedSession().log_in().capture())
    for room in range(begun - 500, begun + 1_500, 23):
        disk = Disk(room=room) if limit == "room" else Disk()
        session = TapedSession(disk=disk, session_bytes_max=room if limit == "session_bytes_max" else 1 << 26).log_in()
        pieces = ("<message id='1'><bo", "dy>hello, ", "you</body></mess", "age><presence/><iq id='", "2' type='get'/>")
        for piece in pieces * 4:
            session.say(C, piece)
        found = written(session.finish(), tmp_path)
        assert found is not None
        lost = found.lines[-1]
        assert isinstance(lost, Lost)
        assert lost.why == ("session-limit" if limit == "session_bytes_max" else "queue-limit")
        assert len(session.disk.data) <= room + LAST_BYTES
        assert session.forwarded[C].count(b"<presence/>") == 4


def test_no_room_ends_the_capture_and_not_the_session(tmp_path: Path) -> None:
    session = chat(TapedSession(disk=Disk(room=6_000)).log_in(), 50)
    assert session.disk.cut == ["capture.queue_bytes_max"]
    assert session.forwarded[C].count(b"<message") == 50
    found = written(session.finish(), tmp_path)
    assert found is not None
    assert not found.is_whole


def test_an_element_that_is_never_complete_does_not_fill_the_memory(tmp_path: Path) -> None:
    session = TapedSession(waiting_bytes_max=50_000).log_in()
    session.say(C, "<message><body>never")
    for number in range(2_000):
        session.say(S, f"<message id='{number}'><body>hello, how are you all there?</body></message>")
    assert session.disk.cut == ["capture.waiting_bytes_max"]
    assert not session.tape._lines
    assert session.forwarded[S].count(b"<message") == 2_000
    found = written(session.finish(), tmp_path)
    assert found is not None
    assert isinstance(found.lines[-1], Lost)


def test_a_bug_ends_the_capture_and_not_the_session(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    session = TapedSession().log_in()

    def fail(*_: object) -> None:
        raise ValueError("quotes what the peer sent: s3cret")

    monkeypatch.setattr(session.tape._redactor, "redact", fail)
    chat(session, 3).finish()
    assert session.forwarded[C].count(b"<message") == 3
    assert session.records[-1].action == "connection-closed"
    assert b"internal-error" in session.capture()
    assert "s3cret" not in caplog.text
    assert "capturing a session ended for an internal error: ValueError" in caplog.text
