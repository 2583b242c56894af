"""The control socket of a proxy before a real Prosody: what is seen of its sessions, and how a drain ends them."""

import base64
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.accounts import DOMAIN, MODES, PASSWORDS
from tests.support.mint import Mint
from tests.support.prosody import Prosody
from tests.support.proxy_process import ProxyProcess, action, at, only
from tests.support.raw_peer import client_context, connect, log_in

pytestmark = [pytest.mark.integration, pytest.mark.slow]

StartProxy = Callable[..., ProxyProcess]


def ask(proxy: ProxyProcess, *arguments: str) -> Any:
    command = [sys.executable, "-m", "xproxy", *arguments, "--state", str(proxy.state)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def wait_for_text(path: Path, text: str) -> None:
    """Prosody writes its log when it likes."""
    deadline = time.monotonic() + 20
    while text not in path.read_text():
        assert time.monotonic() < deadline, f"{text} is not in {path}"
        time.sleep(0.05)


@pytest.mark.parametrize("mode", MODES)
def test_a_session_at_prosody_is_what_prosody_says_of_it(
    start_proxy: StartProxy, prosody: Prosody, mint: Mint, mode: str
) -> None:
    proxy = start_proxy(prosody.port(mode))
    client = connect(proxy.port)
    payload = base64.b64encode(b"\0alice\0" + PASSWORDS["alice"].encode())
    log_in(client, client_context(proxy.ca_file), payload, direct=mode == "direct-tls")
    bound = proxy.wait_record("resource-bound")
    (row,) = ask(proxy, "sessions")["sessions"]
    assert row["jid"] == at(bound, "xmpp.jid")
    assert row["jid"].startswith(f"alice@{DOMAIN}/")
    assert (row["jid_source"], row["mechanism"], row["tls"]) == (
        "bind-result",
        "PLAIN",
        {"client": "1.3", "server": "1.3"},
    )
    local = at(proxy.wait_record("session-established"), "xproxy.upstream.local.port")
    wait_for_text(prosody.log_file, f"127.0.0.1, {local}")  # the same connection in the server's own log
    before = row["from_client"]

    # Stanzas are told of one by one in sessions from now on alone, not in this one.
    ask(proxy, "log-level", "debug")
    client.send(f"<iq type='get' id='p' to='{DOMAIN}'><ping xmlns='urn:xmpp:ping'/></iq>".encode())
    client.until(b"id='p'")
    (row,) = ask(proxy, "sessions")["sessions"]
    assert row["from_client"]["stanzas"] == before["stanzas"] + 1
    assert "stanza-relayed" not in {action(record) for record in proxy.records()}

    assert ask(proxy, "drain", "--seconds", "0.3", "--wait")["ended"]
    assert client.rest().endswith(b"</stream:stream>") is False  # dropped, not ended: a client may resume
    assert proxy.process.wait(10) == 0
    records = proxy.records()
    assert at(only(records, "connection-closed"), "event.reason") == "shutdown"
    assert at(records[-1], "event.reason") == "drain"
