"""Capturing real sessions: what is in the files, what the log says of it, how it ends; and Wireshark's own tools."""

import base64
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.accounts import DOMAIN, PASSWORDS
from tests.support.canary import Canary
from tests.support.gosendxmpp import GoSendXmpp
from tests.support.mint import Mint
from tests.support.prosody import Prosody
from tests.support.proxy_process import ProxyProcess, at, only, trace_of
from tests.support.raw_peer import (
    RawPeer,
    client_context,
    connect,
    log_in,
    scripted_server,
    serve_login,
    server_context,
)
from xproxy.capture.elements import elements_of
from xproxy.capture.trace import Lost, TraceSession, read_sessions, read_trace
from xproxy.replay.golden import comparable
from xproxy.replay.offline import replay

pytestmark = [pytest.mark.integration, pytest.mark.slow]

StartProxy = Callable[..., ProxyProcess]
BODY = "what they say to each other"
README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def client(go_sendxmpp: type[GoSendXmpp]) -> Callable[..., GoSendXmpp]:
    """Make a go-sendxmpp that talks to a proxy."""

    def make(
        proxy: ProxyProcess, *, user: str = "gopher", password: str | None = None, mode: str = "starttls"
    ) -> GoSendXmpp:
        return go_sendxmpp(
            port=proxy.port,
            ca_file=proxy.ca_file,
            mode=mode,
            user=user,
            domain=DOMAIN,
            password=password or PASSWORDS[user],
        )

    return make


def captures(directory: Path) -> dict[str, TraceSession]:
    """Return the captured sessions by trace id."""
    return {trace_of(file): next(read_sessions(file)) for file in sorted(directory.glob("*.xcap.jsonl"))}


def xproxy(*arguments: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "xproxy", *map(str, arguments)], capture_output=True, text=True, check=False
    )


def test_bodies_are_captured_when_asked_for_and_the_log_says_so(
    start_proxy: StartProxy, prosody: Prosody, client: Callable[..., GoSendXmpp], tmp_path: Path
) -> None:
    directory = tmp_path / "c"
    proxy = start_proxy(prosody.port("starttls"), "--capture", str(directory), "--capture-bodies")
    assert client(proxy).send(f"nobody@{DOMAIN}", BODY).final["status"] == 0
    session = proxy.session()
    proxy.stop()
    started = only(proxy.records(), "capture-started")
    assert at(started, "log.level") == "warning"
    assert at(started, "xproxy.capture.bodies") is True
    assert at(started, "xproxy.capture.directory") == str(directory)
    assert f"captures in {directory} hold what people say to each other" in proxy.stderr()
    (file,) = directory.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    octets = file.read_bytes()
    assert BODY.encode() in octets
    assert b'"redaction":"bodies-2"' in octets
    assert proxy.canary.hits(octets) == []
    again = [record.document for replayed in replay(file) for record in replayed.records]
    assert comparable(again) == comparable(session)
    stopped = only(proxy.records(), "capture-stopped")
    assert (at(stopped, "event.reason"), at(stopped, "xproxy.capture.sessions")) == ("shutdown", 1)


def test_capturing_is_started_and_stopped_while_the_proxy_runs(
    start_proxy: StartProxy, prosody: Prosody, client: Callable[..., GoSendXmpp], tmp_path: Path
) -> None:
    proxy = start_proxy(prosody.port("starttls"), "--capture-ring", "100000")
    send = lambda: client(proxy).send(f"nobody@{DOMAIN}", BODY)  # noqa: E731
    state = ("--state", proxy.state)
    assert json.loads(xproxy("capture", "status", *state).stdout)["directory"] is None
    send()
    directory = tmp_path / "later"
    started = xproxy("capture", "start", directory, *state)
    assert (started.returncode, started.stderr) == (0, "")
    assert json.loads(started.stdout)["directory"] == str(directory)
    twice = xproxy("capture", "start", directory, *state)
    assert twice.returncode != 0
    assert "sessions are captured already" in twice.stderr
    wrong = xproxy("capture", "start", directory, "--on", "sasl-faild", *state)
    assert "did you mean sasl-failed?" in wrong.stderr
    send()
    proxy.sessions(count=2)
    stopped = xproxy("capture", "stop", *state)
    assert json.loads(stopped.stdout)["directory"] is None
    assert xproxy("capture", "stop", *state).returncode != 0
    send()
    proxy.sessions(count=3)
    proxy.stop()
    (session,) = captures(directory).values()
    assert session.is_whole
    record = only(proxy.records(), "capture-started")
    assert at(record, "xproxy.control.uid") is not None
    assert at(only(proxy.records(), "capture-stopped"), "event.reason") == "asked"


def test_only_what_is_looked_for_is_written(
    start_proxy: StartProxy, prosody: Prosody, client: Callable[..., GoSendXmpp], tmp_path: Path
) -> None:
    directory = tmp_path / "c"
    proxy = start_proxy(
        prosody.port("starttls"),
        *("--capture", str(directory), "--capture-on", "sasl-failed", "--capture-jid", f"gopher@{DOMAIN}"),
    )
    client(proxy).send(f"nobody@{DOMAIN}", BODY)
    client(proxy, user="gretel", password="canary-wrong-password").send(f"nobody@{DOMAIN}", BODY)
    client(proxy, password="canary-wrong-password").send(f"nobody@{DOMAIN}", BODY)
    sessions = proxy.sessions(count=3)
    proxy.stop()
    ((trace, session),) = captures(directory).items()
    assert session.is_whole
    (wanted,) = (each for each in sessions if at(each[0], "trace.id") == trace)
    assert at(only(wanted, "sasl-failed"), "xmpp.sasl.authcid") == "gopher"


@pytest.mark.parametrize("how", ["size-limit", "disk"])
def test_when_there_is_no_room_capturing_ends_and_traffic_goes_on(
    how: str, start_proxy: StartProxy, prosody: Prosody, client: Callable[..., GoSendXmpp], tmp_path: Path
) -> None:
    directory, config = tmp_path / "c", tmp_path / "xproxy.toml"
    config.write_text("[capture]\ntotal_bytes_max = 12_000\n" if how == "size-limit" else "")
    proxy = start_proxy(prosody.port("starttls"), "-c", str(config), "--capture", str(directory))
    send = client(proxy).send
    assert send(f"nobody@{DOMAIN}", BODY).final["status"] == 0
    if how == "disk":
        shutil.rmtree(directory)  # as a disk that is gone
    for _ in range(2):
        assert send(f"nobody@{DOMAIN}", BODY).final["status"] == 0
    stopped = proxy.wait_record("capture-stopped")
    assert at(stopped, "event.reason") == how
    assert at(stopped, "event.outcome") == "failure"
    assert send(f"nobody@{DOMAIN}", BODY).final["status"] == 0
    proxy.sessions(count=4)
    assert "capturing ended" in proxy.stderr()
    if how == "size-limit":
        assert sum(file.stat().st_size for file in directory.iterdir()) <= 12_000
        assert at(only(proxy.records(), "limit-reached"), "xproxy.limit.name") == "capture.total_bytes_max"
    else:
        assert "No such file" in at(stopped, "error.message")
    proxy.stop()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 48 KiB."""
    directory = tmp_path / "disk"
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=48k,mode=700", "none", str(directory)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("no file system can be mounted here (root with CAP_SYS_ADMIN can)")
    yield directory
    subprocess.run(["umount", str(directory)], check=True)


def test_on_a_full_disk_each_capture_says_that_it_ends_and_each_session_goes_on(
    start_proxy: StartProxy, small_disk: Path, mint: Mint, canary: Canary
) -> None:
    canary.register("password of raw-capture", "canary-full-disk")
    message = b"<message id='m'><body>" + BODY.encode() * 20 + b"</body></message>"
    context = server_context(mint.leaf(DOMAIN, label="full-disk"))

    def answer(peer: RawPeer) -> None:
        serve_login(peer, context)
        for _ in range(40):
            peer.send(peer.until(b"</message>"))
        peer.rest()

    with scripted_server(answer) as server:
        proxy = start_proxy(server.port, "--capture", str(small_disk))
        clients = [connect(proxy.port) for _ in range(3)]
        for client in clients:
            log_in(client, client_context(proxy.ca_file), base64.b64encode(b"\0raw-capture\0canary-full-disk"))
        for _ in range(40):
            for client in clients:
                client.send(message)
                client.until(b"</message>")
        stopped = proxy.wait_record("capture-stopped")
        for client in clients:
            client.close()
        proxy.sessions(count=3)
        proxy.stop()
    assert (at(stopped, "event.reason"), at(stopped, "event.outcome")) == ("disk", "failure")
    assert "No space left on device" in at(stopped, "error.message")
    assert at(stopped, "xproxy.capture.sessions_lost") == 3
    assert not any(record["event"]["action"] == "limit-reached" for record in proxy.records())
    found = captures(small_disk)
    assert len(found) == 3
    for session in found.values():
        lost = session.lines[-1]
        assert isinstance(lost, Lost)
        assert lost.why == "disk"
        assert len(session.lines) > 20


def test_a_session_under_way_is_cut_off_when_capturing_stops(
    start_proxy: StartProxy, prosody: Prosody, client: Callable[..., GoSendXmpp], tmp_path: Path
) -> None:
    directory = tmp_path / "c"
    proxy = start_proxy(prosody.port("starttls"), "--capture", str(directory))
    with client(proxy).listening():
        proxy.wait_record("session-established")
        xproxy("capture", "stop", "--state", proxy.state)
    proxy.session()
    proxy.stop()
    (session,) = captures(directory).values()
    assert isinstance(session.lines[-1], Lost)
    assert session.lines[-1].why == "asked"
    assert at(only(proxy.records(), "capture-stopped"), "xproxy.capture.sessions_lost") == 1


def test_a_proxy_that_is_killed_leaves_what_was_captured(
    start_proxy: StartProxy, prosody: Prosody, client: Callable[..., GoSendXmpp], tmp_path: Path
) -> None:
    directory = tmp_path / "c"
    proxy = start_proxy(prosody.port("starttls"), "--capture", str(directory))
    client(proxy).send(f"nobody@{DOMAIN}", BODY)
    with client(proxy).listening():
        proxy.wait_record("session-established", after=proxy.mark() - 1)
        time.sleep(0.2)
        proxy.process.send_signal(signal.SIGKILL)
        proxy.process.wait()
    files = sorted(directory.iterdir())
    assert len(files) == 2
    lines = [len(list(read_trace(file))) for file in files]
    assert min(lines) > 10
    replayed = [json.loads(line) for line in xproxy("replay", "offline", *files, "--json").stdout.splitlines()]
    actions = [
        {at(record, "event.action") for record in replayed if at(record, "trace.id") == trace_of(file)}
        for file in files
    ]
    cut, whole = sorted(actions, key=lambda seen: "connection-closed" in seen)  # files of one second have no order
    assert "connection-closed" in whole
    assert "session-established" in cut
    assert "connection-closed" not in cut


def stanzas_of(pcap: Path, *arguments: str) -> Counter[str]:
    """Count the stanzas that tshark finds."""
    fields = ("xmpp.iq", "xmpp.message", "xmpp.presence")
    found = subprocess.run(
        ["tshark", "-r", str(pcap), *arguments, "-Y", "xmpp", "-T", "fields", "-E", "occurrence=a",
         *(part for field in fields for part in ("-e", field))],
        capture_output=True,
        text=True,
        check=True,
    )  # fmt: skip
    counted: Counter[str] = Counter()
    for line in found.stdout.splitlines():
        for field, value in zip(fields, line.split("\t"), strict=True):
            counted[field.removeprefix("xmpp.")] += len(value.split(",")) if value else 0
    return counted


def stanzas_in(files: list[Path]) -> Counter[str]:
    """Count those that are in captures."""
    counted: Counter[str] = Counter(iq=0, message=0, presence=0)
    for file in files:
        for element in elements_of(read_trace(file)):
            if element.is_stanza:
                name = re.match(rb"<(\w+)", element.unit.octets.lstrip())
                assert name is not None
                counted[name[1].decode()] += 1
    return counted


def test_tshark_counts_the_same_stanzas_in_what_was_exported(
    start_proxy: StartProxy, prosody: Prosody, client: Callable[..., GoSendXmpp], tmp_path: Path
) -> None:
    if shutil.which("tshark") is None:
        pytest.skip("tshark is not installed (Debian: tshark)")
    every: list[Path] = []
    for mode in ("starttls", "direct-tls"):
        directory = tmp_path / mode
        proxy = start_proxy(prosody.port(mode), "--capture", str(directory))
        client(proxy, mode=mode).ask()
        client(proxy, mode=mode).send(f"nobody@{DOMAIN}", BODY)
        proxy.sessions(count=2)
        proxy.stop()
        files = sorted(directory.iterdir())
        every += files
        pcapng = tmp_path / f"{mode}.pcapng"
        assert xproxy("capture", "export", *files, "--pcapng", pcapng).returncode == 0
        counted = stanzas_of(pcapng)
        assert counted == stanzas_in(files)
        assert counted["iq"] >= 8
        assert counted["message"] >= 1
    pcapng = tmp_path / "all.pcapng"
    assert xproxy("capture", "export", *every, "--pcapng", pcapng).returncode == 0
    assert stanzas_of(pcapng) == stanzas_in(every)


@contextmanager
def tcpdump(pcap: Path, *ports: int) -> Iterator[None]:
    """Write the packets of these ports, as README has it."""
    if shutil.which("tcpdump") is None or shutil.which("editcap") is None:
        pytest.skip("tcpdump and editcap are not installed (Debian: tcpdump, tshark)")
    expression = " or ".join(f"tcp port {port}" for port in ports)
    process = subprocess.Popen(
        ["tcpdump", "-i", "lo", "-U", "--immediate-mode", "-Z", "root", "-w", str(pcap), expression],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    said = process.stderr.readline()
    if "permission" in said or "listening on" not in said:
        process.kill()
        process.wait()
        pytest.skip(f"tcpdump cannot capture here: {said.strip()}")
    try:
        yield
        time.sleep(0.5)  # the kernel hands packets over in batches
    finally:
        process.terminate()
        process.communicate()


@pytest.mark.parametrize("mode", ["starttls", "direct-tls"])
def test_keys_and_packets_together_are_read_by_tshark(
    mode: str, start_proxy: StartProxy, prosody: Prosody, client: Callable[..., GoSendXmpp], tmp_path: Path, mint: Mint
) -> None:
    """The commands of README: both legs are decrypted, with the stanzas that the capture has."""
    for words in ("--keylog keys.log", "tcpdump -i lo -w packets.pcap", "-d tcp.port==15222,xmpp -Y xmpp",
                  "-q -z follow,tls,ascii,0",
                  "editcap --inject-secrets tls,keys.log packets.pcap decrypted.pcapng"):  # fmt: skip
        assert words in README
    keys, packets, decrypted = tmp_path / "keys.log", tmp_path / "packets.pcap", tmp_path / "decrypted.pcapng"
    server_port = prosody.port(mode)
    directory = tmp_path / "c"
    proxy = start_proxy(server_port, "--keylog", str(keys), "--capture", str(directory))
    with tcpdump(packets, proxy.port, server_port):
        client(proxy, mode=mode).ask()
        proxy.session()
    proxy.stop()
    assert keys.stat().st_mode & 0o777 == 0o600
    assert at(only(proxy.records(), "keylog-opened"), "xproxy.keylog.path") == str(keys)
    assert f"the keys of every TLS session are written to {keys}" in proxy.stderr()
    subprocess.run(["editcap", "--inject-secrets", f"tls,{keys}", str(packets), str(decrypted)], check=True)
    want = stanzas_in(list(directory.iterdir()))
    if mode == "starttls":
        for port in (proxy.port, server_port):
            assert stanzas_of(decrypted, "-d", f"tcp.port=={port},xmpp") == want
        return
    for stream in (0, 1):
        followed = subprocess.run(
            ["tshark", "-r", str(decrypted), "-q", "-z", f"follow,tls,ascii,{stream}"], capture_output=True, check=True
        ).stdout
        found = Counter(name.decode() for name in re.findall(rb"<(iq|message|presence)[ >]", followed))
        assert found == {name: count for name, count in want.items() if count}


def test_a_file_of_keys_that_others_may_read_is_refused(tmp_path: Path) -> None:
    keys = tmp_path / "keys.log"
    keys.touch(mode=0o644)
    refused = xproxy("run", "--upstream", "127.0.0.1:1", "--state", tmp_path / "s", "--keylog", keys)
    assert refused.returncode == 3
    assert f"others may read the file of TLS keys {keys}" in refused.stderr
