"""How fast a capture is replayed offline, and with how much memory: 230-byte messages of one session.

    python bench/bench_offline.py [--mib 1024] [--quick] [--directory DIR]

The capture is made in DIR (default: the temporary directory), a login and then messages both ways, and removed at the
end. Replayed by the command itself, `xproxy replay offline`, whose peak of resident memory is looked at after a
quarter of its octets and at the end (VmHWM). The bar: 15 MB/s, counted in octets of XML, and memory that does not grow.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import attrs

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from xproxy.capture.content import redaction
from xproxy.capture.trace import Closed, Conn, Meta, SessionLine, Xml, meta_line, session_line
from xproxy.config.stream import StreamLimits, StreamPolicy
from xproxy.events import Side
from xproxy.record.recorder import Observer

MESSAGE_BYTES = 230
BAR_MB_PER_SECOND = 15.0
HEADER = "<stream:stream to='example.org' version='1.0' xmlns='jabber:client' " \
         "xmlns:stream='http://etherx.jabber.org/streams'>"  # fmt: skip
SASL = "xmlns='urn:ietf:params:xml:ns:xmpp-sasl'"
BIND = "xmlns='urn:ietf:params:xml:ns:xmpp-bind'"
LOGIN = (
    (Side.CLIENT, HEADER),
    (Side.SERVER, HEADER.replace(" to=", " id='x' from=") + "<stream:features><mechanisms " + SASL
     + "><mechanism>PLAIN</mechanism></mechanisms></stream:features>"),
    (Side.CLIENT, f"<auth {SASL} mechanism='PLAIN'>AHJvbWVvAHh4eHg=</auth>"),
    (Side.SERVER, f"<success {SASL}/>"),
    (Side.CLIENT, HEADER),
    (Side.SERVER, HEADER.replace(" to=", " id='y' from=") + f"<stream:features><bind {BIND}/></stream:features>"),
    (Side.CLIENT, f"<iq type='set' id='b'><bind {BIND}/></iq>"),
    (Side.SERVER, f"<iq type='result' id='b'><bind {BIND}><jid>romeo@example.org/garden</jid></bind></iq>"),
)  # fmt: skip


def main() -> int:
    """Make the capture, replay it, say what was seen."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mib", type=int, default=1_024, help="size of the capture (default: 1024)")
    parser.add_argument("--quick", action="store_true", help="32 MiB")
    parser.add_argument("--directory", type=Path, default=None)
    options = parser.parse_args()
    size = (32 if options.quick else options.mib) * 2**20
    with tempfile.TemporaryDirectory(prefix="bench-offline-", dir=options.directory) as directory:
        file = Path(directory) / "bench.xcap.jsonl"
        octets, messages = make(file, size)
        print(f"capture: {file.stat().st_size / 2**20:.0f} MiB, {messages} messages, {octets / 1e6:.0f} MB of XML")
        seconds, early, peak = replay(file)
    rate = octets / 1e6 / seconds
    print(f"replayed in {seconds:.1f} s: {rate:.1f} MB/s of XML, {messages / seconds:.0f} messages/s (bar: 15 MB/s)")
    print(f"resident: {early / 2**10:.1f} MiB early, {peak / 2**10:.1f} MiB at most")
    return 0 if rate >= BAR_MB_PER_SECOND else 1


def make(file: Path, size: int) -> tuple[int, int]:
    """Write a capture of about ``size`` bytes; return its octets of XML and its messages."""
    meta = Meta(
        tool="xproxy bench",
        created="2026-11-25T20:00:00Z",
        redaction=redaction(bodies=False),
        observer=Observer(version="0", hostname="bench", boot_id="0" * 32),
    )
    conn = Conn(session=1, n=1, t_ns=0, line=2, at_ns=1_795_636_800_000_000_000, trace_id="a" * 32, core_t_ns=0,
                mode="direct-tls", limits=StreamLimits(), policy=StreamPolicy())  # fmt: skip
    conn = attrs.evolve(conn, mode="clear")
    head: list[SessionLine] = [conn]
    for side, text in LOGIN:
        head.append(_xml(len(head) + 1, side, text.encode(), "plain"))
    template = (
        "<message to='romeo@example.org/garden' from='juliet@example.org/balcony' type='chat' id='{:08x}'>"
        "<body>{}</body></message>"
    )
    body = "x" * (MESSAGE_BYTES - len(template.format(0, "")))
    octets = messages = 0
    with file.open("wb", buffering=2**20) as out:
        written = out.write(meta_line(meta)) + sum(out.write(session_line(line)) for line in head)
        n = len(head)
        line = _xml(0, Side.SERVER, b"@@", "bound")
        prefix, _, suffix = session_line(line).partition(b"@@")
        while written < size:
            n += 1
            text = template.format(messages, body)
            head_of_line = prefix.replace(b'"n":0', b'"n":%d' % n).replace(b'"t":0', b'"t":%d' % (n * 100_000))
            written += out.write(head_of_line + text.encode() + suffix)
            octets += len(text)
            messages += 1
        out.write(session_line(Closed(session=1, n=n + 1, t_ns=n * 100_000, line=0)))
    return octets, messages


def _xml(n: int, side: Side, data: bytes, phase: str) -> Xml:
    return Xml(session=1, n=n, t_ns=0, line=0, sent_by=side, phase=phase, data=data)  # type: ignore[arg-type]


def replay(file: Path) -> tuple[float, int, int]:
    """Run the command; return seconds, resident KiB early on and at the end."""
    begun = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-m", "xproxy", "replay", "offline", str(file), "--json"],
        stdout=subprocess.DEVNULL,
        cwd=Path(__file__).resolve().parent.parent,
    ) as process:
        early = peak = 0
        quarter = file.stat().st_size // 4
        while process.poll() is None:
            peak = _peak(process.pid) or peak
            if not early and _was_read(process.pid) > quarter:
                early = peak
            time.sleep(0.1)
    assert process.returncode == os.EX_OK, process.returncode
    return time.monotonic() - begun, early or peak, peak


def _was_read(pid: int) -> int:
    """Return how many octets a process has read (rchar, proc(5)): little but the capture."""
    try:
        lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("rchar")), 0)


def _peak(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)


if __name__ == "__main__":
    sys.exit(main())
