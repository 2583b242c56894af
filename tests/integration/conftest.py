"""One Prosody, one set of accounts, one slixmpp for all integration tests; a proxy for each TLS mode."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support import gosendxmpp, raw_peer
from tests.support import prosody as prosody_support
from tests.support.accounts import DOMAIN, MODES, PASSWORDS
from tests.support.canary import Canary
from tests.support.mint import Mint
from tests.support.prosody import Prosody, running_prosody
from tests.support.proxy_process import ProxyProcess, running_xproxy
from tests.support.slix import SlixDriver, slix_driver

StartProxy = Callable[..., ProxyProcess]


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
def proxies(
    tmp_path_factory: pytest.TempPathFactory, prosody: Prosody, mint: Mint, canary: Canary
) -> Iterator[dict[str, ProxyProcess]]:
    """A proxy before Prosody for each TLS mode, shared: look only at records after a mark."""
    with ExitStack() as stack:
        yield {
            mode: stack.enter_context(
                running_xproxy(
                    tmp_path_factory.mktemp(f"xproxy-{mode}"),
                    canary=canary,
                    upstream=f"127.0.0.1:{prosody.port(mode)}",
                    upstream_ca=mint.ca_file,
                    domain=DOMAIN,
                )
            )
            for mode in MODES
        }


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
