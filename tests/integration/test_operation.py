"""What an operator does to a running proxy, and what the network does: ports, signals, files, other protocols."""

import base64
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.accounts import DOMAIN, PASSWORDS
from tests.support.canary import Canary
from tests.support.mint import Mint
from tests.support.prosody import Prosody
from tests.support.proxy_process import ProxyProcess, action, actions, at, only
from tests.support.raw_peer import CLIENT_HEADER, DECLARATION, client_context, connect, log_in
from tests.support.slix import SlixDriver, slix_driver

pytestmark = [pytest.mark.integration, pytest.mark.slow]

StartProxy = Callable[..., ProxyProcess]


@pytest.mark.parametrize(
    ("octets", "name"),
    [
        (b"GET / HTTP/1.1\r\nHost: xmpp.test\r\n\r\n", "http"),
        (b"POST /http-bind HTTP/1.1\r\n\r\n", "http"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "ssh"),
    ],
)
def test_another_protocol_is_closed_without_an_answer(
    proxies: dict[str, ProxyProcess], octets: bytes, name: str
) -> None:
    proxy = proxies["starttls"]
    mark = proxy.mark()
    client = connect(proxy.port)
    client.send(octets)
    assert client.rest() == b""
    session = proxy.session(after=mark)
    assert at(only(session, "unsupported-transport"), "xproxy.first_bytes") == name
    assert at(session[-1], "event.reason") == "unsupported-transport"


def test_the_upstream_is_down(start_proxy: StartProxy) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    proxy = start_proxy(port)
    client = connect(proxy.port)
    client.send(DECLARATION + CLIENT_HEADER)
    assert client.rest() == b""
    session = proxy.session()
    failed = only(session, "upstream-failed")
    assert at(failed, "event.reason") == "refused"
    assert at(failed, "error.code") == "ECONNREFUSED"
    assert at(failed, "destination.port") == port
    assert at(session[-1], "event.reason") == "upstream-failed"


def test_a_bad_upstream_is_a_clear_error(tmp_path: Path) -> None:
    done = subprocess.run(
        _command("--listen", "127.0.0.1:0", "--upstream", "127.0.0.1:bad", "--state", str(tmp_path / "state")),
        capture_output=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr
    assert b"--upstream" in done.stderr


def test_a_taken_port_is_a_clear_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = subprocess.run(
            _command("--listen", address, "--upstream", "127.0.0.1:5222", "--state", str(tmp_path / "state")),
            capture_output=True,
            timeout=20,
            check=False,
        )
    assert done.returncode == 3
    assert b"Traceback" not in done.stderr
    assert address.encode() in done.stderr


def test_two_listeners_serve_alike_and_their_real_addresses_are_told(start_proxy: StartProxy, prosody: Prosody) -> None:
    proxy = start_proxy(prosody.starttls_port, listeners=2)
    assert len(set(proxy.ports)) == 2
    assert 0 not in proxy.ports
    addresses = [f"127.0.0.1:{port}" for port in proxy.ports]
    started = proxy.wait_record("proxy-started")  # the file may be faster than the log
    assert at(started, "xproxy.listeners") == addresses
    assert all(address in proxy.stderr() for address in addresses)
    for port in proxy.ports:
        mark = proxy.mark()
        client = connect(port)
        client.send(DECLARATION + CLIENT_HEADER)
        client.until(b"</stream:features>")
        client.close()
        assert at(proxy.session(after=mark)[0], "xproxy.listener.port") == port


def test_records_on_standard_output_when_piped(tmp_path: Path, prosody: Prosody, mint: Mint) -> None:
    """Without --log and without a terminal: JSON Lines on stdout, nothing else."""
    command = [
        *_command("--listen", "127.0.0.1:0", "--upstream", f"127.0.0.1:{prosody.starttls_port}"),
        *("--upstream-ca", str(mint.ca_file), "--state", str(tmp_path / "state"), "--domain", DOMAIN),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        opened, started = (json.loads(process.stdout.readline()) for _ in range(2))
        assert (action(opened), action(started)) == ("journal-opened", "proxy-started")
        port = int(at(started, "xproxy.listeners")[0].rpartition(":")[2])
        client = connect(port)
        client.send(DECLARATION + CLIENT_HEADER)
        client.until(b"</stream:features>")
        client.close()
        lines = []
        while not lines or action(lines[-1]) != "connection-closed":
            lines.append(json.loads(process.stdout.readline()))
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=20)
        assert action(json.loads(rest.splitlines()[-1])) == "proxy-stopped"
    assert process.returncode == 0
    assert actions(lines)[0] == "connection-accepted"


def test_sighup_opens_the_log_again(start_proxy: StartProxy, prosody: Prosody) -> None:
    """As logrotate does it: move, signal. No record is lost or written twice (numbering is checked at the stop)."""
    proxy = start_proxy(prosody.starttls_port)
    client = connect(proxy.port)
    client.send(DECLARATION + CLIENT_HEADER)
    client.until(b"</stream:features>")
    proxy.wait_record("stream-features")
    moved = proxy.log_file.with_suffix(".1")
    proxy.rotated.append(moved)
    proxy.log_file.rename(moved)
    proxy.signal(signal.SIGHUP)
    changed = proxy.wait_record("config-changed")
    assert "log-file" in at(changed, "xproxy.config.changed")
    client.close()
    proxy.session()
    new = [json.loads(line) for line in proxy.log_file.read_bytes().splitlines()]
    assert "connection-closed" in actions(new)
    assert "stream-features" not in actions(new)  # that was before
    assert proxy.log_file.stat().st_mode & 0o777 == 0o600


def test_sighup_reads_certificates_again(start_proxy: StartProxy, prosody: Prosody, mint: Mint, tmp_path: Path) -> None:
    """New connections see the new certificate, open ones live on; a bad pair is reported and the old one kept."""
    first, second = mint.leaf(DOMAIN, label="first"), mint.leaf(DOMAIN, label="second")
    certificate, key = tmp_path / "cert.pem", tmp_path / "cert.key"
    shutil.copy(first.certificate, certificate)
    shutil.copy(first.key, key)
    proxy = start_proxy(prosody.direct_tls_port, "--cert", str(certificate), "--key", str(key))
    context = client_context(mint.ca_file)

    old = connect(proxy.port)
    old.start_tls(context, server_hostname=DOMAIN)
    assert old.certificate_sha256() == first.sha256

    shutil.copy(second.certificate, certificate)
    shutil.copy(second.key, key)
    mark = proxy.mark()
    proxy.signal(signal.SIGHUP)
    changed = proxy.wait_record("config-changed", after=mark)
    assert "certificates" in at(changed, "xproxy.config.changed")
    new = connect(proxy.port)
    new.start_tls(context, server_hostname=DOMAIN)
    assert new.certificate_sha256() == second.sha256

    shutil.copy(first.key, key)  # no longer a pair
    mark = proxy.mark()
    proxy.signal(signal.SIGHUP)
    refused = proxy.wait_record("config-changed", after=mark)
    assert at(refused, "event.outcome") == "failure"
    still = connect(proxy.port)
    still.start_tls(context, server_hostname=DOMAIN)
    assert still.certificate_sha256() == second.sha256

    for client in (old, new, still):
        client.send(CLIENT_HEADER)
        client.until(b"</stream:features>")
        client.close()
    proxy.sessions(count=3)


def test_sigterm_lets_sessions_end_by_themselves(start_proxy: StartProxy, prosody: Prosody, canary: Canary) -> None:
    """The listener closes at once, the session stays usable, and when it ends the proxy ends."""
    proxy = start_proxy(prosody.direct_tls_port)
    payload = base64.b64encode(b"\0holder\0" + PASSWORDS["holder"].encode())
    canary.register_payload("the holder's payload", payload.decode())
    client = connect(proxy.port)
    log_in(client, client_context(proxy.ca_file), payload, direct=True)
    proxy.wait_record("session-established")
    proxy.signal(signal.SIGTERM)
    _wait_until_closed(proxy.port)
    client.send(b"<iq type='get' id='p1' to='xmpp.test'><ping xmlns='urn:xmpp:ping'/></iq>")
    client.until(b"id='p1'")
    client.send(b"</stream:stream>")
    client.rest()
    client.close()
    assert proxy.process.wait(timeout=10) == 0
    records = proxy.records()
    assert at(only(records, "proxy-stopped"), "xproxy.sessions_aborted") == 0
    assert at(only(records, "connection-closed"), "event.reason") == "stream-closed"


@pytest.fixture
def own_slix() -> Iterator[SlixDriver]:
    """A slixmpp for a test that may leave it in the middle of a job."""
    pytest.importorskip("slixmpp")
    with slix_driver() as driver:
        yield driver


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_being_told_again_while_it_ends_costs_no_record(start_proxy: StartProxy, number: signal.Signals) -> None:
    """However impatient: captures and the journal are closed in form (the stop of a proxy is judged)."""
    proxy = start_proxy(1)
    proxy.signal(signal.SIGTERM)
    while proxy.process.poll() is None:
        proxy.signal(number)
        time.sleep(0.0005)
    assert proxy.process.returncode == 0
    proxy.stop()


@pytest.mark.parametrize("mode", ["starttls", "direct-tls"])
def test_after_the_drain_a_session_ends_abruptly_and_is_resumed_elsewhere(
    start_proxy: StartProxy, prosody: Prosody, own_slix: SlixDriver, canary: Canary, mode: str
) -> None:
    """A second SIGTERM ends the drain at once; no closing tag is invented, so the client can resume."""
    slix = own_slix
    old, new = start_proxy(prosody.port(mode)), start_proxy(prosody.port(mode))
    slix.tell(
        {
            "scenario": "hold",
            "host": "127.0.0.1",
            "port": old.port,
            "mode": mode,
            "domain": DOMAIN,
            "ca_file": str(old.ca_file),
            "clients": [{"user": "holder", "password": PASSWORDS["holder"]}],
        }
    )
    assert slix.hear() == {"held": "session"}
    enabled = old.wait_record("sm-enabled")
    old.signal(signal.SIGTERM)
    _wait_until_closed(old.port)
    slix.tell({"do": "ping"})
    assert slix.hear() == {"step": "result"}  # usable during the drain
    old.signal(signal.SIGTERM)
    slix.tell({"do": "wait-end"})
    assert slix.hear() == {"step": "disconnected"}
    assert old.process.wait(timeout=10) == 0
    stopped = only(old.records(), "proxy-stopped")
    assert at(stopped, "xproxy.sessions_aborted") == 1
    closed = only(old.records(), "connection-closed")
    assert at(closed, "event.reason") == "shutdown"
    assert at(closed, "xproxy.from_client.closing_tag") is False
    assert at(closed, "xproxy.from_server.closing_tag") is False

    slix.tell({"do": "resume", "port": new.port, "ca_file": str(new.ca_file)})
    assert slix.hear() == {"step": "resumed"}
    slix.tell({"do": "ping"})
    assert slix.hear() == {"step": "result"}
    slix.tell({"do": "leave"})
    outcome = slix.outcome()
    for secret in outcome.secrets:
        canary.register_payload("a SASL payload or SM id", secret)
    assert outcome.final["left"] == "closed"
    resumed = only(new.session(), "session-resumed")
    assert at(resumed, "xmpp.sm.id_hash")
    assert at(enabled, "xmpp.sm.id_hash")


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "xproxy", "run", *arguments]


def _wait_until_closed(port: int) -> None:
    """Wait until nobody listens there, without a connection that would be in the log."""
    listening = re.compile(rf"^ *\d+: [0-9A-F]+:{port:04X} [0-9A-F:]+ 0A ", re.MULTILINE)
    deadline = time.monotonic() + 10
    while listening.search(Path("/proc/net/tcp").read_text()):
        assert time.monotonic() < deadline, "the listener does not close"
        time.sleep(0.01)
