"""One of each server, one set of accounts, one slixmpp for all integration tests; a proxy for each TLS mode."""

import datetime
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support import ejabberd as ejabberd_support
from tests.support import gosendxmpp, profanity, raw_peer, xmppjs
from tests.support import prosody as prosody_support
from tests.support.accounts import DOMAIN, MODES, PASSWORDS
from tests.support.canary import Canary
from tests.support.ejabberd import Ejabberd, running_ejabberd
from tests.support.mint import Mint
from tests.support.prosody import Prosody, running_prosody
from tests.support.proxy_process import ProxyProcess, running_xproxy
from tests.support.slix import SlixDriver, slix_driver

StartProxy = Callable[..., ProxyProcess]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What asks about all runs comes after all runs."""
    items.sort(key=lambda item: item.path.name == "test_delegates.py")


@pytest.fixture(autouse=True)
def _no_socket_is_left() -> Iterator[None]:
    yield
    raw_peer.close_all()


@pytest.fixture(scope="session")
def mint(tmp_path_factory: pytest.TempPathFactory) -> Mint:
    """The certificate authority of the servers under test."""
    return Mint(tmp_path_factory.mktemp("mint"))


@pytest.fixture(scope="session")
def canary() -> Canary:
    """Every secret the tests use."""
    made = Canary()
    for user, password in PASSWORDS.items():
        made.register(f"password of {user}", password)
    return made


@pytest.fixture(scope="session")
def prosody(tmp_path_factory: pytest.TempPathFactory, mint: Mint) -> Iterator[Prosody]:
    """A running Prosody."""
    if reason := prosody_support.missing():
        pytest.skip(reason)
    with running_prosody(
        tmp_path_factory.mktemp("prosody"),
        domain=DOMAIN,
        leaf=mint.leaf(DOMAIN, label="prosody"),
        passwords=PASSWORDS,
        rosters={
            "alice": {f"friend@{DOMAIN}": "Friend", f"bob@{DOMAIN}": "Bob"},
            "gopher": {f"friend@{DOMAIN}": "Friend"},
        },
    ) as server:
        yield server


@pytest.fixture(scope="session")
def slix() -> Iterator[SlixDriver]:
    """A slixmpp process."""
    pytest.importorskip("slixmpp")
    with slix_driver() as driver:
        yield driver


@pytest.fixture(scope="session")
def go_sendxmpp() -> type[gosendxmpp.GoSendXmpp]:
    """go-sendxmpp, or a skip."""
    if reason := gosendxmpp.missing():
        pytest.skip(reason)
    return gosendxmpp.GoSendXmpp


@pytest.fixture(scope="session")
def ejabberd(tmp_path_factory: pytest.TempPathFactory, mint: Mint) -> Iterator[Ejabberd]:
    """A running ejabberd, with the same accounts."""
    if reason := ejabberd_support.missing():
        pytest.skip(reason)
    not_after = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=20)
    with running_ejabberd(
        tmp_path_factory.mktemp("ejabberd"),
        domain=DOMAIN,
        leaf=mint.leaf(DOMAIN, label="ejabberd", not_after=not_after),
        passwords=PASSWORDS,
    ) as server:
        yield server


@pytest.fixture(scope="session")
def profanity_tool() -> type[profanity.Profanity]:
    """profanity, or a skip."""
    if reason := profanity.missing():
        pytest.skip(reason)
    return profanity.Profanity


@pytest.fixture(scope="session")
def xmpp_js() -> type[xmppjs.XmppJs]:
    """@xmpp/client, or a skip."""
    if reason := xmppjs.missing():
        pytest.skip(reason)
    return xmppjs.XmppJs


def one_for_each_mode(
    tmp_path_factory: pytest.TempPathFactory, server: Prosody | Ejabberd, mint: Mint, canary: Canary
) -> Iterator[dict[str, ProxyProcess]]:
    """Run a proxy before ``server`` for each TLS mode."""
    with ExitStack() as stack:
        yield {
            mode: stack.enter_context(
                running_xproxy(
                    tmp_path_factory.mktemp(f"xproxy-{mode}"),
                    canary=canary,
                    upstream=f"127.0.0.1:{server.port(mode)}",
                    upstream_ca=mint.ca_file,
                    domain=DOMAIN,
                )
            )
            for mode in MODES
        }


@pytest.fixture(scope="session")
def proxies(
    tmp_path_factory: pytest.TempPathFactory, prosody: Prosody, mint: Mint, canary: Canary
) -> Iterator[dict[str, ProxyProcess]]:
    """A proxy before Prosody for each TLS mode, shared: look only at records after a mark."""
    yield from one_for_each_mode(tmp_path_factory, prosody, mint, canary)


@pytest.fixture(scope="session")
def ejabberd_proxies(
    tmp_path_factory: pytest.TempPathFactory, ejabberd: Ejabberd, mint: Mint, canary: Canary
) -> Iterator[dict[str, ProxyProcess]]:
    """The same before ejabberd."""
    yield from one_for_each_mode(tmp_path_factory, ejabberd, mint, canary)


@pytest.fixture
def start_proxy(tmp_path: Path, mint: Mint, canary: Canary) -> Iterator[StartProxy]:
    """Start a proxy of one's own: ``start_proxy(upstream_port, *arguments)``; it is stopped and judged at the end."""
    with ExitStack() as stack:
        count = 0

        def start(upstream_port: int, *arguments: str, **options: object) -> ProxyProcess:
            nonlocal count
            count += 1
            return stack.enter_context(
                running_xproxy(
                    tmp_path / f"xproxy-{count}",
                    *arguments,
                    canary=canary,
                    upstream=f"127.0.0.1:{upstream_port}",
                    **{"upstream_ca": mint.ca_file, "domain": DOMAIN} | options,  # type: ignore[arg-type]
                )
            )

        yield start
