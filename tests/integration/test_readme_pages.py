"""The pages of README, one a way of use, with real servers: files and commands as they are written there.

What stands there instead is in ``tests/support/pages.py``: ports and the root of the file system.
"""

import datetime
import json
import shutil
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from tests.support import raw_peer
from tests.support.dns import host, running_dns, srv
from tests.support.ejabberd import ejabberd_of, running_ejabberd
from tests.support.mint import Leaf, Mint
from tests.support.pages import Block, Stage, blocks, rows
from tests.support.ports import free_ports
from tests.support.prosody import prosody_of, running_prosody, write_accounts
from xproxy.peer.client import Client, Mode
from xproxy.peer.errors import LoginFailed, StreamFailed

pytestmark = [pytest.mark.integration("jq"), pytest.mark.slow]

DOMAIN = "example.org"
PASSWORDS = {"romeo": "canary-password-of-romeo", "juliet": "canary-password-of-juliet"}
NET_PROXY = Path("/usr/lib/prosody/modules/mod_net_proxy")


@pytest.fixture
def leaf(mint: Mint) -> Leaf:
    """A certificate for the domain of the pages, of an authority that the system trusts."""
    end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=30)
    return mint.leaf(DOMAIN, label="pages", not_after=end)


@pytest.fixture
def stage(tmp_path: Path, mint: Mint) -> Stage:
    """A root of the file system, and ports."""
    public, direct, loopback, s2s = free_ports(4)
    for name in (
        "etc/sysusers.d",
        "run/prosody",
        "var/lib/prosody",
        "var/log/prosody",
        "var/log/xproxy",
        "etc/xproxy",
        "var/lib/ejabberd",
    ):
        (tmp_path / name).mkdir(parents=True)
    ports = {5222: public, 5223: direct, 15222: loopback, 5269: s2s}
    return Stage(tmp_path, ports, mint.ca_file)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """What runs until the test ends, the last first."""
    with ExitStack() as stack:
        yield stack


def lines(printed: str) -> list[Any]:
    """Return what jq printed."""
    return [json.loads(line) for line in printed.splitlines()]


def log_in(stage: Stage, port: int, user: str, password: str, mode: Mode, *, bind_to: str = "127.0.0.1") -> str:
    """Log in through the public port as a client with that address; return the full JID, or how it was refused."""

    async def talk() -> str:
        context = ssl.create_default_context(cafile=stage.ca_file)
        client = Client(host="127.0.0.1", port=port, domain=DOMAIN, tls=context, mode=mode, local_address=bind_to)
        try:
            async with client:
                return await client.enter(user, password)
        except (LoginFailed, StreamFailed) as refused:
            return refused.condition

    return trio.run(talk)


def diagnosis(stage: Stage, command: str) -> dict[str, Any]:
    """Run ``xproxy doctor`` and return its findings by the name of the check."""
    return {each["check"]: each for each in json.loads(stage.run(command, codes=(0, 1)))["findings"]}


# --- an app built on XMPPFramework --------------------------------------------------------------------------------

APP = "An app built on XMPPFramework"


@pytest.mark.integration("prosody", "jq")
def test_the_page_for_an_app_with_xmppframework(stage: Stage, leaf: Leaf, stack: ExitStack) -> None:
    shell = [block for block in blocks(APP) if block.language == "sh"]
    (run,), exports, (jq, delegates) = (block.commands for block in shell)
    server = stack.enter_context(_old_prosody(stage, leaf))
    stage.more = {f"xmpp.{DOMAIN}:5222": f"127.0.0.1:{server}"}
    with stage.running(run):
        ca_file = stage.root / "home-state/xproxy/ca.pem"
        for row in rows(APP):
            name, works = row[2].strip("`"), row[3] == "works"
            assert _as_xmppframework(stage.ports[5222], name, ca_file) is works, row
        assert [row[3] for row in rows(APP)] == ["works", "refused: `tls-failed`", "works", "works"]
        for command in exports:
            assert stage.run(command)
    assert (stage.root / "trust").is_dir()
    told = lines(stage.run(jq))
    refused = [line for line in told if "xmppStream:didReceiveTrust:completionHandler:" in line[3]]
    assert [line[1] for line in refused] == ["tls-failed"]
    assert sum("xmppStreamDidSecure:" in line[3] for line in told) == 3
    assert stage.run(delegates).count("xmppStream") >= 42


def _old_prosody(stage: Stage, leaf: Leaf) -> Any:
    """A Prosody as it was before, on a port of its own, which is given."""
    directory = stage.root / "old-server"
    directory.mkdir()

    class Running:
        def __enter__(self) -> int:
            self._manager = running_prosody(directory, domain=DOMAIN, leaf=leaf, passwords=PASSWORDS)
            return self._manager.__enter__().starttls_port

        def __exit__(self, *failure: Any) -> None:
            self._manager.__exit__(*failure)

    return Running()


def _as_xmppframework(port: int, name: str, ca_file: Path) -> bool:
    """Do as XMPPFramework does up to TLS, comparing the certificate with ``name``; return whether that went well.

    The declaration once and the header in a piece of its own; STARTTLS because the server requires it; SNI is the name
    compared with, unless that is an address.
    """
    context = raw_peer.client_context(ca_file)
    context.check_hostname = True
    peer = raw_peer.connect(port)
    try:
        peer.send(raw_peer.DECLARATION)
        peer.send(raw_peer.CLIENT_HEADER.replace(b"xmpp.test", DOMAIN.encode()))
        peer.until(b"</stream:features>")
        peer.send(raw_peer.STARTTLS)
        peer.until(b"/>")
        peer.start_tls(context, server_hostname=name)
        peer.send(raw_peer.CLIENT_HEADER.replace(b"xmpp.test", DOMAIN.encode()))
        return b"mechanism" in peer.until(b"</stream:features>")
    except ssl.SSLCertVerificationError:
        return False
    finally:
        peer.close()


# --- before Prosody -----------------------------------------------------------------------------------------------

PROSODY = "Before Prosody"


def _by_path(page: list[Block]) -> dict[str, Block]:
    return {block.path: block for block in page if block.path}


def _write_ours(stage: Stage, page: list[Block]) -> None:
    """Write the page's files for xproxy and systemd."""
    for path, block in _by_path(page).items():
        if "xproxy" in path:
            stage.write(block)


def _move_prosody(
    stage: Stage, page: list[Block], leaf: Leaf, stack: ExitStack, lua: Callable[[str], str] = lambda text: text
) -> None:
    """Write what the page has, changed by ``lua``, and let ``systemctl restart prosody`` start it."""
    certificates = stage.root / "etc/prosody/certs"
    certificates.mkdir(parents=True)
    shutil.copy(leaf.certificate, certificates / f"{DOMAIN}.crt")
    shutil.copy(leaf.key, certificates / f"{DOMAIN}.key")
    (certificates / f"{DOMAIN}.key").chmod(0o600)
    files = _by_path(page)
    config = stage.write(files["/etc/prosody/prosody.cfg.lua"])
    # Root is who runs the tests, and Prosody will not be root unless it is told.
    config.write_text("run_as_root = true\n" + lua(config.read_text()))
    _write_ours(stage, page)
    write_accounts(stage.root / "var/lib/prosody", DOMAIN, PASSWORDS)

    def restart() -> None:
        log_file = stage.root / "var/log/prosody/prosody.log"
        ports = (stage.ports[15222],)
        stack.enter_context(prosody_of(config, directory=stage.root, log_file=log_file, ports=ports))

    stage.services["prosody"] = restart


@pytest.mark.integration("prosody", "jq")
def test_the_page_before_prosody(stage: Stage, leaf: Leaf, stack: ExitStack) -> None:
    page = blocks(PROSODY)
    before, commands = (block.commands for block in page if block.language == "sh")
    with _old_prosody(stage, leaf) as old:
        moved, stage.ports = stage.ports, stage.ports | {5222: old}
        assert diagnosis(stage, before[0])["certificate"]["severity"] == "ok"
        stage.ports = moved
    _move_prosody(stage, page, leaf, stack)
    *install, look, stats = commands
    stage.services["xproxy"] = lambda: stack.enter_context(stage.service())
    for command in install:
        stage.run(command)
    for port, mode in ((5222, Mode.STARTTLS), (5223, Mode.DIRECT_TLS)):
        assert log_in(stage, stage.ports[port], "romeo", PASSWORDS["romeo"], mode).startswith("romeo@example.org/")
    assert log_in(stage, stage.ports[5222], "romeo", "wrong", Mode.STARTTLS) == "not-authorized"
    found = diagnosis(stage, look)
    assert found["certificate"]["severity"] == found["direct-tls"]["severity"] == "ok"
    assert stage.run(stats)
    records = [json.loads(line) for line in (stage.root / "var/log/xproxy/records.jsonl").read_text().splitlines()]
    actions = [record["event"]["action"] for record in records]
    assert actions.count("session-established") == 2
    assert actions.count("sasl-failed") == 1
    # Clients see the server's own certificate, on both sides.
    shown = {
        r["tls"]["server"]["hash"]["sha256"].lower() for r in records if "hash" in r.get("tls", {}).get("server", {})
    }
    assert shown == {leaf.sha256}


if NET_PROXY.exists():  # no Debian package has it, and where all is required a skip is a failure

    def test_the_page_before_prosody_with_the_clients_addresses(stage: Stage, leaf: Leaf, stack: ExitStack) -> None:
        page = blocks(PROSODY)
        (instead,) = (block.text for block in page if block.text.startswith("-- instead of"))
        (more,) = (block.text for block in page if block.text.startswith("# in [upstream]"))

        def exchanged(lua: str) -> str:
            kept = [line for line in lua.splitlines() if not line.startswith(("c2s_ports", "c2s_interfaces"))]
            joined = "\n".join(kept).replace('"version"', '"version", "net_proxy"')
            rest = "\n".join(line for line in stage.real(instead).splitlines() if "modules_enabled" not in line)
            return joined.replace("VirtualHost", f"{rest}\nVirtualHost", 1)

        _move_prosody(stage, page, leaf, stack, exchanged)
        config = stage.root / "etc/xproxy/xproxy.toml"
        config.write_text(config.read_text().replace('tls = "starttls"\n', f'tls = "starttls"\n{more}'))
        stage.run("xproxy share write xproxy.service /etc/systemd/system")
        stage.run("systemctl restart prosody")
        with stage.service():
            jid = log_in(stage, stage.ports[5222], "romeo", PASSWORDS["romeo"], Mode.STARTTLS, bind_to="127.0.0.77")
            assert jid.startswith("romeo@example.org/")
        assert "127.0.0.77" in (stage.root / "var/log/prosody/prosody.log").read_text()


# --- before ejabberd ----------------------------------------------------------------------------------------------

EJABBERD = "Before ejabberd"


@pytest.mark.integration("ejabberdctl", "erl", "jq")
def test_the_page_before_ejabberd(stage: Stage, leaf: Leaf, stack: ExitStack) -> None:
    """Twenty-five wrong passwords from one address ban that address and nobody else."""
    page = blocks(EJABBERD)
    before, commands, (jq,) = (block.commands for block in page if block.language == "sh")
    old = stage.root / "old-server"
    old.mkdir()
    with running_ejabberd(old, domain=DOMAIN, leaf=leaf, passwords=PASSWORDS) as server:
        moved, stage.ports = stage.ports, stage.ports | {5222: server.starttls_port}
        assert diagnosis(stage, before[0])["proxy-protocol"]["severity"] == "warning"
        stage.ports = moved
    files = _by_path(page)
    config = stage.write(files["/etc/ejabberd/ejabberd.yml"])
    _write_ours(stage, page)
    both = config.parent / f"{DOMAIN}.pem"
    both.write_bytes(leaf.certificate.read_bytes() + leaf.key.read_bytes())
    both.chmod(0o600)
    directory = stage.root / "var/lib/ejabberd"
    stage.services["ejabberd"] = lambda: stack.enter_context(
        ejabberd_of(config, directory=directory, domain=DOMAIN, passwords=PASSWORDS, ports=(stage.ports[15222],))
    )
    *install, outside, inside = commands
    stage.services["xproxy"] = lambda: stack.enter_context(stage.service())
    for command in install:
        stage.run(command)
    for port, mode in ((5222, Mode.STARTTLS), (5223, Mode.DIRECT_TLS)):
        jid = log_in(stage, stage.ports[port], "romeo", PASSWORDS["romeo"], mode, bind_to="127.0.0.77")
        assert jid.startswith("romeo@example.org/")
    assert diagnosis(stage, outside)["channel-binding"]["severity"] == "ok"
    assert "wants a PROXY protocol header" in diagnosis(stage, inside)["proxy-protocol"]["finding"]
    answers = [
        log_in(stage, stage.ports[5222], "romeo", f"guess {number}", Mode.STARTTLS, bind_to="127.0.0.66")
        for number in range(25)
    ]
    # The twentieth is answered with the ban itself: mod_fail2ban's default.
    assert answers == ["not-authorized"] * 19 + ["policy-violation"] * 6
    assert log_in(
        stage, stage.ports[5222], "juliet", PASSWORDS["juliet"], Mode.STARTTLS, bind_to="127.0.0.77"
    ).startswith("juliet@example.org/")
    assert log_in(stage, stage.ports[5222], "romeo", PASSWORDS["romeo"], Mode.STARTTLS, bind_to="127.0.0.66") == (
        "policy-violation"
    )
    log = (directory / "ejabberd.log").read_text()
    assert "from 127.0.0.77" in log
    failed = lines(stage.run(jq))
    assert failed == [["127.0.0.66", "romeo@example.org", "not-authorized"]] * 19


# --- what comes before the ways of use ----------------------------------------------------------------------------

FIRST, LOOK = "Five minutes, before a real server", "Will it work here? xproxy doctor"


@pytest.mark.integration("prosody", "jq")
def test_the_first_five_minutes(stage: Stage, leaf: Leaf, stack: ExitStack) -> None:
    (run,), (jq,), (for_everyone,) = (block.commands for block in blocks(FIRST))
    server = stack.enter_context(_old_prosody(stage, leaf))
    stage.more = {".venv/bin/xproxy": "xproxy", f"xmpp.{DOMAIN}:5222": f"127.0.0.1:{server}"}
    ours = attrs.evolve(stage, ca_file=stage.root / "state/ca.pem")
    with stage.running(f"{run} --listen 127.0.0.1:5222"):  # 5222 is the default, which another may have here
        jid = log_in(ours, stage.ports[5222], "romeo", PASSWORDS["romeo"], Mode.STARTTLS)
        assert jid.startswith("romeo@example.org/")
        assert log_in(ours, stage.ports[5222], "romeo", "wrong", Mode.STARTTLS) == "not-authorized"
    assert [line[1:] for line in lines(stage.run(jq))] == [["sasl-failed", "romeo@example.org", "not-authorized"]]

    stage.more = {"127.0.0.1:15222": f"127.0.0.1:{server}"}
    shutil.copy(leaf.certificate, stage.root / "etc/xproxy/cert.pem")
    shutil.copy(leaf.key, stage.root / "etc/xproxy/key.pem")
    (stage.root / "ready").unlink()
    with stage.running(for_everyone):
        jid = log_in(stage, stage.ports[5222], "romeo", PASSWORDS["romeo"], Mode.STARTTLS)
        assert jid.startswith("romeo@example.org/")


@pytest.mark.integration("prosody", "jq", "dnsmasq")
def test_the_first_look(stage: Stage, leaf: Leaf, stack: ExitStack) -> None:
    (look,), (jq,) = (block.commands for block in blocks(LOOK))
    server = stack.enter_context(_old_prosody(stage, leaf))
    records = (host(f"xmpp.{DOMAIN}", "127.0.0.1"), srv(DOMAIN, target=f"xmpp.{DOMAIN}", port=server, priority=5))
    names = stack.enter_context(running_dns(stage.root, *records))
    stage.more = {f"doctor {DOMAIN}": f"doctor {DOMAIN} --nameserver {names.address}"}
    assert diagnosis(stage, look)["certificate"]["severity"] == "ok"
    printed = stage.run(jq).splitlines()
    assert {line.partition("\t")[0] for line in printed} == {"note", "warning"}
    assert {row[0].split()[0].strip("`") for row in rows(LOOK)} == {
        "HOST:PORT", "--upstream-ca", "--nameserver", "--jid", "--login", "--try-bans", "--timeout"
    }  # fmt: skip
