"""What becomes of what was said: whole sessions, looked at in their captures."""

import base64
import json
import random
from pathlib import Path

import pytest

from tests.support.canary import Canary
from tests.support.chunks import chunkings
from tests.support.taping import HEADER, LOGIN, SASL, SERVER_HEADER, TapedSession
from xproxy.capture.again import redacted_again
from xproxy.config.stream import StreamPolicy
from xproxy.events import Side
from xproxy.replay.golden import comparable
from xproxy.replay.offline import replay

C, S = Side.CLIENT, Side.SERVER
SECRET = "QXZqxzQXZ"


def octets(capture: bytes, side: Side) -> bytes:
    lines = [json.loads(line) for line in capture.splitlines()]
    return b"".join(
        b"x" * line["octets"]
        if line["ph"] == "opaque"
        else line["raw"].encode()
        if "raw" in line
        else base64.b64decode(line["b64"])
        for line in lines
        if line["k"] == "xml" and line["d"] == side.value
    )


def said(text: str, side: Side = C, *, bodies: bool = False) -> str:
    """Return what is in the capture for ``text``, said in an established session."""
    session = TapedSession(bodies=bodies).log_in()
    start = sum(len(each) for by, each in LOGIN if by is side)
    session.say(side, text)
    return octets(session.finish().capture(), side)[start:].decode()


def same_offline(session: TapedSession, tmp_path: Path) -> None:
    file = tmp_path / "x.xcap.jsonl"
    file.write_bytes(session.capture())
    replayed = list(replay(file))
    assert not any(each.lossy for each in replayed)
    again = [record.document for each in replayed for record in each.records]
    assert comparable(again) == comparable([record.document for record in session.records])


@pytest.mark.parametrize(
    ("text", "captured"),
    [
        ("<message to='a@b' id='7' type='chat'><body>Hello, world</body></message>",
         "<message to='a@b' id='7' type='chat'><body>xxxxxxxxxxxx</body></message>"),
        ("<message><body>a &amp; b<!-- c --><![CDATA[d <e>]]></body><?pi f?></message>",
         "<message><body>xx&#88;xx<!--xxx--><![CDATA[xxxx>]]></body><?pi x?></message>"),
        ("<presence><show>away</show><status>gone</status><priority>-1</priority></presence>",
         "<presence><show>away</show><status>xxxx</status><priority>-1</priority></presence>"),
        ("<presence><show>secret</show><priority>pin 1</priority></presence>",
         "<presence><show>xxxxxx</show><priority>xxxxx</priority></presence>"),
        ("<iq type='set' id='r'><query xmlns='jabber:iq:register'><username>j</username><password>p&lt;w</password>"
         "</query></iq>",
         "<iq type='set' id='r'><query xmlns='jabber:iq:register'><username>x</username><password>x&lt;x</password>"
         "</query></iq>"),
        ("<iq id='f' type='set'><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>"
         "http://jabber.org/protocol/muc#roomconfig</value></field><field var='a' label='b'><value>c</value></field>"
         "</x></iq>",
         "<iq id='f' type='set'><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>"
         "http://jabber.org/protocol/muc#roomconfig</value></field><field var='a' label='x'><value>x</value></field>"
         "</x></iq>"),
        ("<message><x xmlns='urn:x' node='n' p:id='q' xmlns:p='urn:p' url='http://h/t' name=\"N\"/></message>",
         "<message><x xmlns='urn:x' node='n' p:id='x' xmlns:p='urn:p' url='xxxxxxxxxx' name=\"x\"/></message>"),
        ("<iq type='set' id='p'><enable xmlns='urn:xmpp:push:0' jid='push@x' node='device'/></iq>",
         "<iq type='set' id='p'><enable xmlns='urn:xmpp:push:0' jid='push@x' node='xxxxxx'/></iq>"),
        ("<iq id='h'><confirm xmlns='http://jabber.org/protocol/http-auth' id='a7374' method='GET' url='u'/></iq>",
         "<iq id='h'><confirm xmlns='http://jabber.org/protocol/http-auth' id='xxxxx' method='xxx' url='x'/></iq>"),
        ("<iq id='a'><command xmlns='http://jabber.org/protocol/commands' node='n' status='executing'/></iq>",
         "<iq id='a'><command xmlns='http://jabber.org/protocol/commands' node='n' status='executing'/></iq>"),
        ("<presence><x xmlns='urn:x' status='at home'/></presence>",
         "<presence><x xmlns='urn:x' status='xxxxxxx'/></presence>"),
        ("<iq id='c' type='error'><error code='secret'/></iq>", "<iq id='c' type='error'><error code='xxxxxx'/></iq>"),
        ("<message><body>\n</body>\r\n</message>", "<message><body>\n</body>\r\n</message>"),
    ],
)  # fmt: skip
def test_what_stays_and_what_goes(text: str, captured: str) -> None:
    assert said(text) == captured


@pytest.mark.parametrize(
    ("text", "captured"),
    [
        ("<message><body>Hello</body></message>", "<message><body>Hello</body></message>"),
        ("<x xmlns='urn:x'><password>p</password><key>k<deep>er</deep></key><a token='t' b='c'/></x>",
         "<x xmlns='urn:x'><password>x</password><key>x<deep>xx</deep></key><a token='x' b='c'/></x>"),
        ("<iq type='set' id='f'><x xmlns='jabber:x:data'><field var='muc#roomconfig_roomsecret'><value>s"
         "</value></field>"
         "<field type='text-private' var='n'><value>s</value></field><field var='m'><value>v</value></field></x></iq>",
         "<iq type='set' id='f'><x xmlns='jabber:x:data'><field var='muc#roomconfig_roomsecret'><value>x"
         "</value></field>"
         "<field type='text-private' var='n'><value>x</value></field><field var='m'><value>v</value></field></x></iq>"),
    ],
)  # fmt: skip
def test_with_bodies_only_secrets_go(text: str, captured: str) -> None:
    assert said(text, bodies=True) == captured


@pytest.mark.parametrize(
    "text",
    [
        "<auth mechanism='PLAIN'>AGp1bGlldABRWFpxeHpRWFo=QXZqxzQXZ</auth>",
        "<response xmlns='urn:not-sasl'><x>QXZqxzQXZ</x></response>",
        "<step {sasl}>QXZqxzQXZ</step>",
        "<step xmlns='urn:xmpp:sasl:2'>QXZqxzQXZ</step>",
        "<next xmlns='urn:xmpp:sasl:2' task='t'><hash xmlns='urn:xmpp:scram-upgrade:0'>QXZqxzQXZ</hash></next>",
        "<failed xmlns='urn:xmpp:sm:3' previd='QXZqxzQXZ'/>",
        "<slot xmlns='urn:xmpp:http:upload'><put>https://h/QXZqxzQXZ</put><get>https://h/QXZqxzQXZ</get></slot>",
        "<x xmlns='jabber:x:data'><field var='pwd'><value>QXZqxzQXZ</value></field></x>",
        "<x xmlns='jabber:x:data'><field var='p&#97;ssword'><value>QXZqxzQXZ</value></field></x>",
        "<x xmlns='jabber:x:data'><field var='n' type='text-priv&#97;te'/></x>"
        "<x xmlns='jabber:x:data' type='submit'><field var='n'><value>QXZqxzQXZ</value></field></x>",
        "<x xmlns='jabber:x:data'><item><field var='landing-url'><value>https://h/QXZqxzQXZ</value></field></item></x>",
        "<invite xmlns='urn:xmpp:invite#invite'><uri>xmpp:h?register;preauth=QXZqxzQXZ</uri></invite>",
        "<oauth xmlns='urn:xmpp:oauth:0'><oauth_token>QXZqxzQXZ</oauth_token><Api-Key>QXZqxzQXZ</Api-Key></oauth>",
        "<x xmlns='urn:x' access_token='QXZqxzQXZ' Passwd='QXZqxzQXZ' p:client-secret='QXZqxzQXZ' xmlns:p='urn:p'/>",
        "<enable xmlns='urn:xmpp:push:0' jid='push@x' node='QXZqxzQXZ'/>",
    ],
)  # fmt: skip
def test_canary_secrets_go_with_bodies_too(text: str) -> None:
    canary = Canary()
    canary.register("secret", SECRET)
    session = TapedSession(bodies=True).log_in()
    session.say(C, text.format(sasl=SASL) + "<message><body>stays</body></message>")
    session.finish()
    assert "stays" in octets(session.capture(), C).decode()
    assert canary.hits(session.capture()) == []
    assert canary.hits(octets(session.capture(), C)) == []


def test_with_bodies_what_a_server_offers_stays() -> None:
    features = (
        f"<stream:features><mechanisms {SASL}><mechanism>PLAIN</mechanism></mechanisms><authentication "
        "xmlns='urn:xmpp:sasl:2'><mechanism>PLAIN</mechanism><inline><fast xmlns='urn:xmpp:fast:0'><mechanism>HT"
        "</mechanism></fast></inline></authentication></stream:features>"
    )
    assert said(features, S, bodies=True) == features


def test_what_follows_a_loss_in_the_same_chunk_is_neither_kept_nor_the_end_of_the_capture(tmp_path: Path) -> None:
    session = TapedSession().log_in()
    session.say(C, "<compress xmlns='http://jabber.org/protocol/compress'><method>zlib</method></compress>")
    session.say(S, f"<compressed xmlns='http://jabber.org/protocol/compress'/>{SECRET}<a>{SECRET}")
    session.say(C, SECRET)
    session.finish()
    assert not session.tape.failed
    assert octets(session.capture(), S).endswith(b"/compress'/>" + b"x" * (2 * len(SECRET) + 3))
    assert SECRET.encode() not in session.capture()
    same_offline(session, tmp_path)


def test_a_login_keeps_its_names_and_loses_its_secrets() -> None:
    capture = octets(TapedSession().log_in().finish().capture(), C).decode()
    payload = capture.partition("mechanism='PLAIN'>")[2].partition("<")[0]
    assert base64.b64decode(payload) == b"\0juliet\0xxxxxxxxxxxx"


def test_an_error_text_stays_as_far_as_the_log_tells_it() -> None:
    error = (
        "<iq type='error' id='q' from='example.org'><query xmlns='jabber:iq:register'><password>{0}</password></query>"
        "<error type='cancel'><conflict xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>{0}</conflict>"
        "<text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>{1}</text></error></iq>"
    )
    long = "é" * 127 + "abcé" + "z" * 50
    captured = said(error.format("hunter2", long), S)
    assert captured == error.format("xxxxxxx", "é" * 127 + "ab" + "xxx" + "x" * 50)
    # Another user wrote this one.
    foreign = error.replace("from='example.org'", "from='mallory@evil.example'").format("hunter2", "hunter2")
    assert "hunter2" not in said(foreign, S)


def test_resumption_ids_are_aliases_that_stay_the_same() -> None:
    session = TapedSession().log_in()
    session.say(S, "<enabled xmlns='urn:xmpp:sm:3' id='" + SECRET + "' resume='true'/>")
    session.say(S, "<enabled xmlns='urn:xmpp:sm:3' id='another-1' resume='true'/>")
    session.say(C, f"<resume xmlns='urn:xmpp:sm:3' previd='{SECRET}' h='3'/>")
    capture = session.finish().capture().decode()
    assert SECRET not in capture
    alias = capture.partition("<enabled xmlns='urn:xmpp:sm:3' id='")[2].partition("'")[0]
    assert len(alias) == len(SECRET)
    assert f"previd='{alias}'" in capture
    assert capture.count(alias) == 2


@pytest.mark.parametrize(
    "text",
    [
        "<auth {sasl} mechanism='PLAIN'>AGp1bGlldABRWFpxeHpRWFo=</auth>",
        "<auth {sasl} mechanism='PLAIN'>AGp1bGll\n dABRWFpxeHpRWFo=\n</auth>",
        "<auth {sasl} mechanism='PLAIN'>AGp1bGll<!-- -->dABRWFp<![CDATA[xeHpRW]]>Fo&#61;</auth>",
        "<auth {sasl} mechanism='PLAIN'>AGp1bGlldABRWFpxeHpRWFo</auth>",
        "<auth {sasl} mechanism='PLAIN'>AGp1bGlldABRWFpxeHpRWFp=</auth>",
        "<auth {sasl} mechanism='PLAIN'>&#65;Gp1bGlldABRWFpxeHpRWFo=</auth>",
        "<auth {sasl} mechanism='PLAIN'>juliet:QXZqxzQXZ</auth>",
        "<auth {sasl} mechanism='PLAIN'><x>QXZqxzQXZ</x>AGp1bGlldABRWFpxeHpRWFo=</auth>",
        "<auth {sasl} mechanism='QXZqxzQXZ QXZqxzQXZ'>AGp1bGlldABRWFpxeHpRWFo=</auth>",
        "<a:auth xmlns:a='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='SCRAM-SHA-1'>biwsbj1qdWxpZXQscj1RWFpxeHpRWFo="
        "</a:auth>",
        "<auth {sasl} mechanism='SCRAM-SHA-1'>biwscj1RWFpxeHpRWFo=</auth>",
        "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'><initial-response>AGp1bGlldABRWFpxeHpRWFo="
        "</initial-response><user-agent id='QXZqxzQXZ'><device>QXZqxzQXZ</device></user-agent></authenticate>",
        "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'><x xmlns='urn:x'><initial-response "
        "xmlns='urn:xmpp:sasl:2'>AGp1bGlldABRWFpxeHpRWFo=</initial-response></x></authenticate>",
        "<iq type='set' id='1'><query xmlns='jabber:iq:auth'><username>juliet</username><password>QXZqxzQXZ</password>"
        "</query></iq>",
        "<auth xmlns='urn:not-sasl' mechanism='PLAIN'>QXZqxzQXZ</auth>",
        "<message><body>QXZqxzQXZ</body><mechanism xmlns='urn:x'>QXZqxzQXZ</mechanism></message>",
        "<auth {sasl} mechanism='PLAIN'><mechanism>QXZqxzQXZ</mechanism></auth>",
    ],
)  # fmt: skip
def test_canary_no_spelling_of_a_login_lets_a_secret_through(text: str, tmp_path: Path) -> None:
    canary = Canary()
    canary.register("secret", SECRET)
    text = text.format(sasl=SASL)
    for chunks in chunkings(text.encode(), random.Random(3)):
        session = TapedSession()
        for side, words in LOGIN[:3]:
            session.say(side, words)
        for chunk in chunks:
            session.say(C, chunk)
        session.finish()
        assert canary.hits(session.capture()) == []
        same_offline(session, tmp_path)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7])
def test_what_the_network_cuts_at_white_space_is_as_long_offline(size: int, tmp_path: Path) -> None:
    session = TapedSession().log_in()
    error = b"<iq type='error' id='e' from='a@b/c' to='d@e'><error type='cancel'><text>a  b c d</text></error></iq>"
    for start in range(0, len(error), size):
        session.say(S, error[start : start + size])
    session.finish()
    same_offline(session, tmp_path)
    (found,) = [record.document for record in session.records if record.action == "stanza-error"]
    assert found["xmpp"]["stanza"]["octets"] == len(error)


def test_a_byte_order_mark_before_a_restarted_stream_stays(tmp_path: Path) -> None:
    session = TapedSession()
    for side, text in LOGIN[:5]:
        session.say(side, text)
    for octet in f"\ufeff{SERVER_HEADER}".encode():
        session.say(S, bytes([octet]))
    session.finish()
    assert "byte-order-mark" in [record.document["event"].get("reason") for record in session.records]
    same_offline(session, tmp_path)


@pytest.mark.parametrize("begin", [b"\xef", b"\xef\xbb"])
def test_half_a_byte_order_mark_is_no_other_encoding(begin: bytes, tmp_path: Path) -> None:
    session = TapedSession()
    session.say(C, begin)
    session.say(S, "<html>")
    session.finish()
    same_offline(session, tmp_path)


def test_a_declaration_behind_the_end_that_is_cut_off_stays_one(tmp_path: Path) -> None:
    session = TapedSession(policy=StreamPolicy(on_inspection_lost_server="relay")).log_in()
    for chunk in ("\ufeff</stream:stream>", "<?x", "ml", " version='1.0'?>"):
        session.say(S, chunk)
    session.finish()
    assert "after-end" in [record.document["event"].get("reason") for record in session.records]
    same_offline(session, tmp_path)


def test_a_broken_comment_ends_where_it_did(tmp_path: Path) -> None:
    session = TapedSession().log_in()
    session.say(C, "<!-<!-- > --><message/>")
    session.finish()
    assert "not-well-formed" in [record.document["event"].get("reason") for record in session.records]
    same_offline(session, tmp_path)


@pytest.mark.slow
def test_however_the_network_cuts_the_capture_says_the_same(tmp_path: Path) -> None:
    stream = b"".join(
        text.encode()
        for text in (
            "<message to='a@b'><body>one &gt; two</body></message>\n",
            "<presence/> <iq type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq>",
            "<message type='error' to='a@b' id='x'><error type='cancel'>"
            "<gone xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>",
            "<r xmlns='urn:xmpp:sm:3'/></stream:stream>",
        )
    )
    wanted: list[bytes] | None = None
    for chunks in chunkings(stream, random.Random(5)):
        session = TapedSession().log_in()
        for chunk in chunks:
            session.say(C, chunk)
            session.now = 1_795_636_800_100_000_000
        session.finish()
        assert session.forwarded[C].endswith(stream)
        same_offline(session, tmp_path)
        found = [json.dumps(record.document["xmpp"], sort_keys=True).encode() for record in session.records
                 if "xmpp" in record.document]  # fmt: skip
        wanted = wanted or found
        assert found == wanted


def test_a_capture_with_bodies_is_redacted_later_to_what_it_would_have_been(tmp_path: Path) -> None:
    with_bodies, without = TapedSession(bodies=True).log_in(), TapedSession().log_in()
    for session in (with_bodies, without):
        session.say(C, "<message to='a@b'><body>one</body><x xmlns='urn:x' y='z'/></message>")
        session.say(S, "<iq type='error' id='9' from='example.org'><error type='wait'><text "
                       "xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>later</text></error></iq>")  # fmt: skip
        session.say(C, "<message><body>not whole")
        session.end(C)
    file = tmp_path / "x.xcap.jsonl"
    file.write_bytes(with_bodies.capture())
    assert b"one" in with_bodies.capture()
    assert b"".join(redacted_again(file)) == without.capture()
    file.write_bytes(without.capture())
    assert b"".join(redacted_again(file)) == without.capture()


@pytest.mark.slow
@pytest.mark.parametrize(
    "hostile",
    [
        b"<a>" * 100_000,
        b"<message>" + b"".join(b"<a xmlns:p%d='u'/>" % n for n in range(40_000)),
        b"<message>" + b"<x><!---->" * 60_000,
        b"<message " + b" a='b'" * 100_000,
        b"<iq type='error' id='1' from='example.org'><error><text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>"
        + b"a<!---->" * 60_000,
        b"<message><body>" + b"&amp;" * 200_000,
    ],
)  # fmt: skip
def test_a_huge_element_costs_time_in_proportion(hostile: bytes) -> None:
    """Linear: the test would run for minutes if it were not."""
    session = TapedSession().log_in()
    for start in range(0, len(hostile), 16_384):
        session.say(S, hostile[start : start + 16_384])
    session.finish()
    assert not session.tape.failed
    assert len(octets(session.capture(), S)) == len(hostile) + sum(len(text) for by, text in LOGIN if by is S)


@pytest.mark.parametrize(
    ("text", "captured"),
    [
        (HEADER.replace("<", "<,", 1), HEADER.replace("<stream:stream", "<,xxxxxx:xxxxxx", 1)),
        (HEADER.replace("am:", "a(m:", 1), HEADER.replace("<stream:stream", "<xxxxx,x:xxxxxx", 1)),
        (f"<?xml version='\ud8001.0'?>{HEADER}", f"<?xml version='\ud800xxx'?>{HEADER}"),
        (f"<?xml version='QXZqxz QXZ'?>{HEADER}", f"<?xml version='xxxxxxxxxx'?>{HEADER}"),
        (f"<?xml version='1.\"QXZ'?>{HEADER}", f"<?xml version='xxxxxx'?>{HEADER}"),
        (f"<?xml QXZ version='1.0'?>{HEADER}", f"<?xml xxx version='1.0'?>{HEADER}"),
        (f"<?xml version='1.0' encoding='latin-1'?>{HEADER}", f"<?xml version='1.0' encoding='latin-1'?>{HEADER}"),
        (f"{HEADER}<a>&\0QXZ;</a>", f"{HEADER}<a>&\0xxx;</a>"),
        (f"{HEADER}<a>&QX,Z;</a>", f"{HEADER}<a>&xx,x;</a>"),
        (f"{HEADER}<a>&1QXZ;</a>", f"{HEADER}<a>&1xxx;</a>"),
        (f"{HEADER}<a>&#12Q;&QXZ QXZ&#xQ;</a>", f"{HEADER}<a>&#11x;&xxx,xxx&#xx;</a>"),
        (f"{HEADER}<requ,ired/>", f"{HEADER}<xxxx,xxxx/>"),
        (f"{HEADER}<requ~ired QX*Z='1'/>", f"{HEADER}<xxxx,xxxx QX*Z='x'/>"),
    ],
)  # fmt: skip
def test_what_is_no_xml_is_none_for_the_same_reason_afterwards(text: str, captured: str, tmp_path: Path) -> None:
    session = TapedSession()
    session.say(C, text.encode(errors="surrogatepass"))
    session.finish()
    assert any(record.action == "stream-violation" for record in session.records)
    same_offline(session, tmp_path)
    hidden = captured.encode(errors="surrogatepass").replace(b"\xed\xa0\x80", b"\xff\xff\xff")
    assert octets(session.capture(), C) == hidden
