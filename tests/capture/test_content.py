"""What stays and what goes, kind by kind: no secret is in anything that is made of a capture."""

import base64
import hashlib
import html
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.support.canary import Canary
from tests.support.taping import LOGIN, SASL, TapedSession
from xproxy.capture import content, hide
from xproxy.capture.content import RULES, is_of_older_rules, redaction
from xproxy.capture.pcapng import file_header, packets
from xproxy.capture.trace import Xml, read_trace
from xproxy.capture.transcript import transcript
from xproxy.events import Side
from xproxy.replay.compare import compare
from xproxy.replay.github import annotations, step_summary
from xproxy.replay.golden import golden_lines
from xproxy.replay.junit import render_junit
from xproxy.replay.offline import replay
from xproxy.replay.report import Case, Report

C, S = Side.CLIENT, Side.SERVER
SECRET: Final = "QXZqxzQXZ"

DIGEST: Final = f'username="juliet",cnonce="{SECRET}",response={SECRET}'
NONCE: Final = f'realm="h",nonce="{SECRET}"'


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def iq(text: str, kind: str = "set") -> str:
    return f"<iq type='{kind}' id='k'>{text}</iq>"


def form(var: str, kind: str = "text-single") -> str:
    return (
        f"<x xmlns='jabber:x:data' type='submit'><field var='{var}' type='{kind}'><value>{SECRET}</value></field></x>"
    )


def sasl2(mechanism: str, response: str, more: str = "") -> str:
    return (
        f"<authenticate xmlns='urn:xmpp:sasl:2' mechanism='{mechanism}'><initial-response>{b64(response)}"
        f"</initial-response>{more}</authenticate>"
    )


LOGINS: Final = {
    "PLAIN": f"<auth {SASL} mechanism='PLAIN'>{b64(chr(0) + 'juliet' + chr(0) + SECRET)}</auth>",
    "SCRAM": f"<auth {SASL} mechanism='SCRAM-SHA-1'>{b64('n,,n=juliet,r=' + SECRET)}</auth>",
    "SCRAM-PLUS": f"<auth {SASL} mechanism='SCRAM-SHA-256-PLUS'>{b64('p=tls-exporter,,n=juliet,r=' + SECRET)}</auth>",
    "DIGEST-MD5": f"<response {SASL}>{b64(DIGEST)}</response>",
    "CRAM-MD5": f"<response {SASL}>{b64(f'juliet {SECRET}')}</response>",
    "EXTERNAL": f"<auth {SASL} mechanism='EXTERNAL-{SECRET} '>{b64(SECRET)}</auth>",
    "X-OAUTH2": f"<auth {SASL} mechanism='X-OAUTH2'>{b64(chr(0) + 'juliet' + chr(0) + SECRET)}</auth>",
    "OAUTHBEARER": f"<auth {SASL} mechanism='OAUTHBEARER'>"
    f"{b64(f'n,a=juliet@example.org,{chr(1)}host=h{chr(1)}auth=Bearer {SECRET}{chr(1)}{chr(1)}')}</auth>",
    "ANONYMOUS": f"<auth {SASL} mechanism='ANONYMOUS'>{b64(SECRET)}</auth>",
    "LOGIN": f"<auth {SASL} mechanism='LOGIN'>{b64(SECRET)}</auth>",
    "JIVE-SHAREDSECRET": f"<auth {SASL} mechanism='JIVE-SHAREDSECRET'>{b64(SECRET)}</auth>",
    "GSSAPI": f"<auth {SASL} mechanism='GSSAPI'>{b64(SECRET)}</auth>",
    "not base64": f"<auth {SASL} mechanism='PLAIN'>juliet:{SECRET}</auth>",
    "SASL2": sasl2("PLAIN", f"\0juliet\0{SECRET}", f"<user-agent id='{SECRET}'><device>{SECRET}</device></user-agent>"),
    "SASL2 task": f"<next xmlns='urn:xmpp:sasl:2' task='HOTP'>{SECRET}</next>",
    "SASL2 upgrade": "<next xmlns='urn:xmpp:sasl:2' task='UPGR-SCRAM-SHA-256'><hash xmlns='urn:xmpp:scram-upgrade:0'>"
    f"{b64(SECRET)}</hash></next>",
    "FAST": sasl2("HT-SHA-256-NONE", f"juliet\0{SECRET}", "<fast xmlns='urn:xmpp:fast:0' count='1'/>"),
    "inline resumption": sasl2("PLAIN", f"\0j\0{SECRET}", f"<resume xmlns='urn:xmpp:sm:3' previd='{SECRET}' h='1'/>"),
    "legacy": iq(f"<query xmlns='jabber:iq:auth'><username>juliet</username><digest>{SECRET}</digest></query>"),
    "legacy in clear": iq(f"<query xmlns='jabber:iq:auth'><username>j</username><password>{SECRET}</password></query>"),
    "registration": iq(f"<query xmlns='jabber:iq:register'><key>{SECRET}</key><password>{SECRET}</password></query>"),
    "pre-authentication": iq(f"<preauth xmlns='urn:xmpp:pars:0' token='{SECRET}'/>"),
    "component": f"<handshake xmlns='jabber:component:accept'>{SECRET}</handshake>",
}
CHALLENGES: Final = {
    "SCRAM": f"<challenge {SASL}>{b64(f'r={SECRET},s={b64(SECRET)},i=4096')}</challenge>",
    "DIGEST-MD5": f"<challenge {SASL}>{b64(NONCE)}</challenge>",
    "success": f"<success {SASL}>{b64(f'v={b64(SECRET)}')}</success>",
    "FAST token": f"<success xmlns='urn:xmpp:sasl:2'><additional-data>{b64(SECRET)}</additional-data>"
    f"<token xmlns='urn:xmpp:fast:0' expiry='2026-12-01T00:00:00Z' token='{SECRET}'/></success>",
    "failure": f"<failure {SASL}><not-authorized/><text>x</text><detail>{SECRET}</detail></failure>",
}
SECRETS: Final = {
    "password change": iq(f"<query xmlns='jabber:iq:register'><username>j</username><password>"
                          f"{SECRET}</password></query>"),
    "password change by form": iq(f"<query xmlns='jabber:iq:register'>{form('password', 'text-private')}</query>"),
    "echo in an error": iq(f"<query xmlns='jabber:iq:register'><password>{SECRET}</password></query><error "
                           f"type='cancel'>"
                           "<conflict xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>", "error"),
    "room": f"<presence to='r@m/n'><x xmlns='http://jabber.org/protocol/muc'><password>{SECRET}</password>"
            f"</x></presence>",
    "room to everybody": "<presence from='r@m/n'><x xmlns='http://jabber.org/protocol/muc#user'>"
                         f"<password>{SECRET}</password></x></presence>",
    "room configuration": iq("<query xmlns='http://jabber.org/protocol/muc#owner'>"
                             f"{form('muc#roomconfig_roomsecret')}</query>"),
    "room destroyed": iq("<query xmlns='http://jabber.org/protocol/muc#owner'><destroy><password>"
                         f"{SECRET}</password></destroy></query>"),
    "invitation to a room": f"<message><x xmlns='jabber:x:conference' jid='r@m' password='{SECRET}'/></message>",
    "bookmark": iq("<pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='urn:xmpp:bookmarks:1'>"
                   "<item id='r@m'>"
                   f"<conference xmlns='urn:xmpp:bookmarks:1'><password>{SECRET}</password></conference>"
                   f"</item></publish>"
                   "</pubsub>"),
    "bookmark in private XML": iq("<query xmlns='jabber:iq:private'><storage xmlns='storage:bookmarks'>"
                                  "<conference jid='r@m'>"
                                  f"<password>{SECRET}</password></conference></storage></query>"),
    "upload slot": iq(f"<slot xmlns='urn:xmpp:http:upload:0'><put url='https://h/{SECRET}/f'><header "
                      f"name='Authorization'>"
                      f"Bearer {SECRET}</header></put><get url='https://h/{SECRET}/f'/></slot>", "result"),
    "first upload slot": iq(f"<slot xmlns='urn:xmpp:http:upload'><put>https://h/{SECRET}</put></slot>", "result"),
    "push": iq(f"<enable xmlns='urn:xmpp:push:0' jid='push@x' node='{SECRET}'>{form('secret')}</enable>"),
    "TURN": iq("<services xmlns='urn:xmpp:extdisco:2'><service type='turn' host='h' username='u' "
               f"password='{SECRET}'/></services>", "result"),
    "ICE": iq("<jingle xmlns='urn:xmpp:jingle:1' action='session-initiate' sid='s'><content "
              "creator='initiator' name='n'>"
              f"<transport xmlns='urn:xmpp:jingle:transports:ice-udp:1' pwd='{SECRET}' ufrag='{SECRET}'/></content>"
              "</jingle>"),
    "SDES": iq("<jingle xmlns='urn:xmpp:jingle:1'><encryption xmlns='urn:xmpp:jingle:apps:rtp:1'><crypto "
               f"key-params='inline:{SECRET}' tag='1'/></encryption></jingle>"),
    "OAuth": iq(f"<x xmlns='urn:x' access_token='{SECRET}'><refresh-token>{SECRET}</refresh-token></x>"),
    "HTTP confirmation": iq(f"<confirm xmlns='http://jabber.org/protocol/http-auth' id='{SECRET}' "
                            f"method='GET'/>", "get"),
    "SM": f"<resume xmlns='urn:xmpp:sm:3' previd='{SECRET}' h='2'/>",
    "SM enabled": f"<enabled xmlns='urn:xmpp:sm:3' id='{SECRET}' resume='true'/>",
    "ad-hoc form": iq("<command xmlns='http://jabber.org/protocol/commands' node='http://jabber.org/protocol/admin#"
                      f"change-user-password' action='complete'>{form('password')}</command>"),
    "hidden field of ad-hoc form": iq("<command xmlns='http://jabber.org/protocol/commands' node='n'>"
                                      f"{form('auth_token', 'hidden')}</command>"),
    "invitation": iq("<command xmlns='http://jabber.org/protocol/commands' node='urn:xmpp:invite#invite'>"
                     f"{form('uri')}{form('landing-url')}</command>", "result"),
    "dialback": f"<db:result xmlns:db='jabber:server:dialback' from='a' to='b'>{SECRET}</db:result>",
}  # fmt: skip
CONTENT: Final = {
    "body": f"<message><body>{SECRET}</body><subject>{SECRET}</subject><thread>{SECRET}</thread></message>",
    "XHTML": "<message><html xmlns='http://jabber.org/protocol/xhtml-im'><body xmlns='http://www.w3.org/1999/xhtml'>"
             f"<p style='{SECRET}'><a href='{SECRET}'>{SECRET}</a></p></body></html></message>",
    "carbon": "<message from='j@h' to='j@h/r'><received xmlns='urn:xmpp:carbons:2'><forwarded "
              "xmlns='urn:xmpp:forward:0'>"
              f"<message xmlns='jabber:client'><body>{SECRET}</body></message></forwarded></received></message>",
    "archive": "<message><result xmlns='urn:xmpp:mam:2' queryid='q' id='i'><forwarded "
               "xmlns='urn:xmpp:forward:0'><message "
               f"xmlns='jabber:client'><body>{SECRET}</body></message></forwarded></result></message>",
    "OMEMO": "<message><encrypted xmlns='eu.siacs.conversations.axolotl'><header sid='1'><key rid='2'>"
             f"{SECRET}</key><iv>{SECRET}</iv></header><payload>{SECRET}</payload></encrypted></message>",
    "OpenPGP": f"<message><openpgp xmlns='urn:xmpp:openpgp:0'>{SECRET}</openpgp></message>",
    "old OpenPGP": f"<message><x xmlns='jabber:x:encrypted'>{SECRET}</x></message>",
    "vCard": iq(f"<vCard xmlns='vcard-temp'><FN>{SECRET}</FN><TEL><NUMBER>{SECRET}</NUMBER></TEL></vCard>"),
    "vCard4": iq("<pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='urn:xmpp:vcard4'><item><vcard "
                 f"xmlns='urn:ietf:params:xml:ns:vcard-4.0'><fn><text>{SECRET}</text></fn></vcard></item>"
                 f"</publish></pubsub>"),
    "avatar": iq("<pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='urn:xmpp:avatar:data'><item><data "
                 f"xmlns='urn:xmpp:avatar:data'>{b64(SECRET)}</data></item></publish></pubsub>"),
    "status": f"<presence><status>{SECRET}</status><show>{SECRET}</show></presence>",
    "correction and reply": f"<message><replace xmlns='urn:xmpp:message-correct:0' id='r'/><reply "
                            f"xmlns='urn:xmpp:reply:0' "
                            f"to='a@b' id='r'/><fallback xmlns='urn:xmpp:fallback:0' for='{SECRET}'/></message>",
    "reaction": f"<message><reactions xmlns='urn:xmpp:reactions:0' id='r'><reaction>{SECRET}</reaction>"
                f"</reactions></message>",
    "link": f"<message><x xmlns='jabber:x:oob'><url>https://h/{SECRET}</url><desc>{SECRET}</desc></x></message>",
    "place": f"<message><geoloc xmlns='http://jabber.org/protocol/geoloc'><lat>{SECRET}</lat></geoloc></message>",
    "reason": iq("<query xmlns='http://jabber.org/protocol/muc#admin'><item nick='n' role='none'><reason>"
                 f"{SECRET}</reason></item></query>"),
    "nickname": iq(f"<query xmlns='jabber:iq:roster'><item jid='a@b' name='{SECRET}'><group>{SECRET}</group>"
                   f"</item></query>"),
    "form": iq(f"<query xmlns='jabber:iq:search'>{form('first')}</query>"),
    "data": iq(f"<data xmlns='http://jabber.org/protocol/ibb' seq='0' sid='s'>{b64(SECRET)}</data>"),
    "private XML": iq(f"<query xmlns='jabber:iq:private'><notes xmlns='urn:x'>{SECRET}<a b='{SECRET}'/>"
                      f"</notes></query>"),
    "bits of binary": iq(f"<data xmlns='urn:xmpp:bob' cid='{SECRET}' type='image/png'>{b64(SECRET)}</data>", "result"),
    "comment and instruction": f"<message><body>a<!--{SECRET}--><![CDATA[{SECRET}]]></body><?pi {SECRET}?></message>",
    "spelt in references": f"<message><body>{''.join(f'&#{ord(char)};' for char in SECRET)}</body></message>",
}  # fmt: skip


def established(text: str, side: Side, *, bodies: bool) -> TapedSession:
    session = TapedSession(bodies=bodies).log_in()
    session.say(side, text)
    session.say(side.other, "<message type='error' id='e' from='example.org'><error type='wait'/></message>")
    return session.finish()


def logging_in(client: str, server: str | None = None, *, bodies: bool) -> TapedSession:
    session = TapedSession(bodies=bodies)
    for side, words in LOGIN[:3]:
        session.say(side, words)
    session.say(C, client)
    if server is not None:
        session.say(S, server)
    return session.finish()


def made_of(capture: Path) -> Iterator[tuple[str, bytes]]:
    """Yield everything that xproxy makes of a capture."""
    yield "capture", capture.read_bytes()
    octets = b"".join(line.data for line in read_trace(capture) if isinstance(line, Xml))
    yield "octets", octets
    yield "octets as they are read", html.unescape(octets.decode(errors="replace")).encode()
    yield (
        "transcript",
        "".join(span.text for entry in transcript(read_trace(capture)) for row in entry.lines for span in row).encode(),
    )
    yield "packets", file_header() + b"".join(packets(read_trace(capture)))
    records = [record for replayed in replay(capture) for record in replayed.records]
    yield "records", b"".join(record.to_json() for record in records)
    golden = golden_lines([record.document for record in records], session=1)
    yield "golden events", b"".join(golden)
    other = [line.replace(b'"event"', b'"other"') for line in golden[1:]]
    failure = compare(list(enumerate(other, 1)), golden, file="golden", line=1)
    assert failure is not None
    yield "difference", repr(failure).encode() + failure.detail.encode()
    case = Case(name="session 1", file=str(capture), line=1, failures=(failure,))
    report = Report(name="x", cases=(case,))
    yield "JUnit", render_junit(report)
    yield "annotations", "\n".join([*annotations(report), step_summary(report)]).encode()


def hunt(session: TapedSession, tmp_path: Path) -> None:
    canary = Canary()
    canary.register("secret", SECRET)
    capture = tmp_path / "x.xcap.jsonl"
    capture.write_bytes(session.capture())
    assert not session.tape.failed
    for what, made in made_of(capture):
        assert not canary.hits(made), what


@pytest.mark.parametrize("bodies", [False, True], ids=["default", "bodies"])
@pytest.mark.parametrize("kind", LOGINS)
def test_canary_a_login(kind: str, bodies: bool, tmp_path: Path) -> None:
    hunt(logging_in(LOGINS[kind], bodies=bodies), tmp_path)


@pytest.mark.parametrize("bodies", [False, True], ids=["default", "bodies"])
@pytest.mark.parametrize("kind", CHALLENGES)
def test_canary_what_a_server_says_to_a_login(kind: str, bodies: bool, tmp_path: Path) -> None:
    for login in ("SCRAM", "SASL2"):
        hunt(logging_in(LOGINS[login], CHALLENGES[kind], bodies=bodies), tmp_path)


@pytest.mark.parametrize("bodies", [False, True], ids=["default", "bodies"])
@pytest.mark.parametrize("kind", SECRETS)
def test_canary_a_secret_in_an_established_session(kind: str, bodies: bool, tmp_path: Path) -> None:
    for side in Side:
        hunt(established(SECRETS[kind], side, bodies=bodies), tmp_path)


@pytest.mark.parametrize("kind", CONTENT)
def test_canary_what_people_say(kind: str, tmp_path: Path) -> None:
    for side in Side:
        hunt(established(CONTENT[kind], side, bodies=False), tmp_path)


def test_the_number_of_the_rules_is_raised_with_every_change_of_them() -> None:
    """A change? Then raise RULES in xproxy/capture/content.py, say there what it was, and put the digest here."""
    seen = hashlib.sha256()
    for name, table in (*sorted(vars(content).items()), *sorted(vars(hide).items())):
        if isinstance(table, re.Pattern):
            seen.update(f"{name} {table.pattern!r} {table.flags}\n".encode())
        elif name.isupper() and isinstance(table, frozenset | dict):
            seen.update(f"{name} {sorted(map(str, table.items() if isinstance(table, dict) else table))}\n".encode())
    sessions: list[TapedSession] = []
    for bodies in (False, True):
        sessions += [logging_in(text, CHALLENGES["SCRAM"], bodies=bodies) for text in LOGINS.values()]
        sessions += [established(text, C, bodies=bodies) for text in (*SECRETS.values(), *CONTENT.values())]
    for session in sessions:
        for line in session.capture().splitlines():
            if (octets := json.loads(line).get("raw")) is not None:
                seen.update(octets.encode())
    assert (RULES, seen.hexdigest()[:16]) == (2, "f74300d1de86747b")


@pytest.mark.parametrize(
    ("said", "older"),
    [
        (redaction(bodies=False), False),
        (redaction(bodies=True), False),
        ("default-1", True),
        ("bodies-1", True),
        (f"default-{RULES + 1}", False),
        ("none", True),
        ("default-²", True),
        ("default-" + "9" * 5_000, True),
    ],
)
def test_a_capture_says_by_which_rules_it_was_redacted(said: str, older: bool) -> None:
    assert is_of_older_rules(said) is older
