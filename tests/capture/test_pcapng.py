"""Packets as Wireshark reads them: tshark counts the same stanzas, and finds no checksum wrong."""

import json
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import attrs
import pytest

from tests.support.traces import CLIENT, ESTABLISHED, SERVER, conn, render
from xproxy.capture.elements import elements_of
from xproxy.capture.pcapng import SEGMENT_BYTES_MAX, file_header, packets
from xproxy.capture.trace import Closed, Noted, SessionLine, Tls, Xml, read_trace
from xproxy.events import Endpoint, Side
from xproxy.events.connection import ConnectionAccepted

HEADER = "<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"
C, S = Side.CLIENT, Side.SERVER
STARTTLS = [
    (C, HEADER),
    (S, HEADER + "<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/></stream:features>"),
    (C, "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"),
    (S, "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"),
]
TALK = [
    (C, HEADER),
    (S, HEADER + "<stream:features/>"),
    (C, "<iq type='get' id='1'><query xmlns='jabber:iq:roster'/></iq><presence/>"),
    (S, "<iq type='result' id='1'><query xmlns='jabber:iq:roster'/></iq>"),
    (C, "<message to='a@b' type='chat'><body>hello</body></message><message to='a@b'><body/></message>"),
    (S, "<message from='a@b' type='error' id='7'><error type='cancel'/></message>"),
    (S, "<presence from='a@b'/>"),
    (C, "</stream:stream>"),
    (S, "</stream:stream>"),
]


def session(number: int, *parts: list[tuple[Side, str]], client: Endpoint = CLIENT) -> list[SessionLine]:
    """Return a session whose parts have TLS between them."""
    listener = SERVER if "." in client.ip else Endpoint("2001:db8::1", 5222)
    lines: list[SessionLine] = [
        conn(trace_id=f"{number:032x}"),
        Noted(session=1, n=0, t_ns=0, line=0, event=ConnectionAccepted(client=client, listener=listener)),
    ]
    for index, part in enumerate(parts):
        if index:
            lines += [Tls(session=1, n=0, t_ns=0, line=0, event=attrs.evolve(ESTABLISHED, leg=side)) for side in (S, C)]
        lines += [
            Xml(session=1, n=0, t_ns=0, line=0, sent_by=side, phase="tls", data=text.encode()) for side, text in part
        ]
    lines.append(Closed(session=1, n=0, t_ns=0, line=0))
    return [attrs.evolve(line, session=number, n=n, t_ns=n * 1_000_000) for n, line in enumerate(lines, 1)]


def export(tmp_path: Path, *sessions: list[SessionLine]) -> tuple[Path, Path]:
    """Write a capture of ``sessions``, interleaved, and its packets."""
    mixed = [line for at in range(max(map(len, sessions))) for each in sessions for line in each[at : at + 1]]
    capture, pcap = tmp_path / "x.xcap.jsonl", tmp_path / "x.pcapng"
    capture.write_bytes(render(mixed))
    pcap.write_bytes(file_header() + b"".join(packets(read_trace(capture))))
    return capture, pcap


def tshark(pcap: Path, *arguments: str) -> list[list[str]]:
    if shutil.which("tshark") is None:
        pytest.skip("tshark is not installed (Debian: tshark)")
    done = subprocess.run(
        ["tshark", "-r", str(pcap), "-o", "ip.check_checksum:TRUE", "-o", "tcp.check_checksum:TRUE", "-T", "fields",
         "-E", "occurrence=f", *arguments],
        capture_output=True,
        text=True,
        check=True,
    )  # fmt: skip
    return [line.split("\t") for line in done.stdout.splitlines()]


def check(capture: Path, pcap: Path) -> None:
    """tshark sees the stanzas that are there, each in its packet, and whole TCP conversations."""
    wanted: Counter[str] = Counter()
    for element in elements_of(read_trace(capture)):
        if element.is_stanza:
            wanted[element.unit.octets.lstrip()[1:].split(b" ", 1)[0].split(b">")[0].rstrip(b"/").decode()] += 1
    found = tshark(pcap, "-Y", "xmpp", "-e", "xmpp.iq", "-e", "xmpp.message", "-e", "xmpp.presence")
    counted = Counter(
        kind for row in found for kind, value in zip(("iq", "message", "presence"), row, strict=False) if value
    )
    assert counted == wanted
    bad = "tcp.checksum.status == 0 || ip.checksum.status == 0 || tcp.analysis.flags"
    # To Wireshark's XML a closing tag alone is malformed: it looks at packets, not at streams.
    odd = '_ws.malformed && !(tcp.payload contains "</stream:stream>")'
    for filter_ in (bad, odd):
        assert tshark(pcap, "-Y", filter_, "-e", "frame.number", "-e", "_ws.expert.message") == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "sessions",
    [
        [session(1, STARTTLS, TALK)],
        [session(1, TALK)],
        [
            session(1, STARTTLS, TALK),
            session(2, TALK),
            session(3, STARTTLS, TALK, client=Endpoint("2001:db8::7", 50_000)),
        ],
    ],
    ids=["starttls", "direct-tls", "several"],
)
def test_tshark_reads_what_was_said(sessions: list[list[SessionLine]], tmp_path: Path) -> None:
    capture, pcap = export(tmp_path, *sessions)
    check(capture, pcap)
    streams = {row[0] for row in tshark(pcap, "-e", "tcp.stream")}
    assert len(streams) == sum(2 if len(each) > len(TALK) + 5 else 1 for each in sessions)
    comments = tshark(pcap, "-Y", "xmpp.message", "-e", "frame.comment")
    assert all(row[0].startswith("trace 0000") and " n " in row[0] for row in comments)
    ends = tshark(pcap, "-Y", "tcp.flags.fin == 1", "-e", "tcp.stream")
    assert len(ends) == 2 * len(streams)


@pytest.mark.slow
def test_a_long_stanza_is_several_segments_and_one_stanza(tmp_path: Path) -> None:
    body = "x" * (SEGMENT_BYTES_MAX * 2 + 17)
    capture, pcap = export(tmp_path, session(1, [*TALK[:2], (S, f"<message><body>{body}</body></message>")]))
    check(capture, pcap)
    assert len(tshark(pcap, "-Y", "tcp.len > 20000", "-e", "frame.number")) == 2


def test_packets_of_a_session_cut_off_in_the_middle_are_packets(tmp_path: Path) -> None:
    lines = session(1, STARTTLS, TALK)
    for end in range(1, len(lines)):
        _, pcap = export(tmp_path, lines[:end])
        octets = pcap.read_bytes()
        at = 0
        while at < len(octets):
            size = int.from_bytes(octets[at + 4 : at + 8], "little")
            assert size % 4 == 0
            assert octets[at + size - 4 : at + size] == size.to_bytes(4, "little")
            at += size
        assert at == len(octets)


def test_the_trace_id_is_not_a_secret_and_the_capture_is_json(tmp_path: Path) -> None:
    capture, pcap = export(tmp_path, session(1, TALK))
    assert json.loads(capture.read_text().splitlines()[1])["trace"].encode() in pcap.read_bytes()
