"""Listening: addresses, who is let in, and what the system may refuse."""

import errno
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
import trio
from lxml import etree

from tests.support.proxying import proxying, receive_all, receive_exactly, send_all
from xproxy.config.listen import ListenAddress, ListenKind
from xproxy.config.sessions import SessionLimits
from xproxy.errors import AddressProblem
from xproxy.events import Endpoint
from xproxy.events.connection import ConnectionClosed, ConnectionRefused, RefusalReason
from xproxy.events.proxy import LimitReached
from xproxy.proxy import listener
from xproxy.proxy.listener import Admissions, open_listeners, take_over
from xproxy.proxy.refusal import Refusal
from xproxy.proxy.sockets import address_key, endpoint_of
from xproxy.xmpp.names import renew_dictionary


@pytest.mark.parametrize(
    ("address", "endpoint"),
    [
        (("192.0.2.1", 5222), Endpoint("192.0.2.1", 5222)),
        (("::ffff:192.0.2.1", 5222, 0, 0), Endpoint("192.0.2.1", 5222)),
        (("2001:db8::1", 5222, 0, 0), Endpoint("2001:db8::1", 5222)),
        (("fe80::1%eth0", 5222, 0, 2), Endpoint("fe80::1", 5222)),
    ],
)
def test_addresses_as_the_log_shows_them(address: tuple[object, ...], endpoint: Endpoint) -> None:
    assert endpoint_of(address) == endpoint


def test_one_ipv6_subscriber_is_one_address() -> None:
    assert address_key("2001:db8:1:2::1") == address_key("2001:db8:1:2:ffff::1")
    assert address_key("2001:db8:1:2::1") != address_key("2001:db8:1:3::1")
    assert address_key("192.0.2.1") != address_key("192.0.2.2")


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(AddressProblem, match=f"cannot listen on 127.0.0.1:{port}") as raised:
            open_listeners([ListenAddress("127.0.0.1", 0), ListenAddress("127.0.0.1", port)])
        assert raised.value.hint is not None
        assert "port" in raised.value.hint


def test_an_address_of_another_machine() -> None:
    with pytest.raises(AddressProblem, match=r"cannot listen on 192\.0\.2\.1:5222"):
        open_listeners([ListenAddress("192.0.2.1", 5222)])


def test_both_families_of_one_port_each_with_a_listener_of_its_own() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free_soon:
        port = free_soon.getsockname()[1]
    opened = open_listeners([ListenAddress("0.0.0.0", port), ListenAddress("::", port)])
    assert [sock.family for _, sock in opened] == [socket.AF_INET, socket.AF_INET6]
    for _, sock in opened:
        sock.close()


def test_tproxy_without_the_right_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: socket.socket) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(listener, "make_transparent", refuse)
    with pytest.raises(AddressProblem, match=r"cannot listen on tproxy://127\.0\.0\.1:0: Operation not") as raised:
        open_listeners([ListenAddress("127.0.0.1", 0, ListenKind.TPROXY)])
    assert "CAP_NET_ADMIN" in str(raised.value.hint)


def test_sockets_that_a_service_manager_opened_are_of_the_kind_configured() -> None:
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        addresses = [sock.getsockname() for sock in (first, second)]
        balanced = ListenAddress(*addresses[1], ListenKind.PROXY_PROTOCOL)
        assert take_over([first, second], [balanced]) == [(ListenAddress(*addresses[0]), first), (balanced, second)]


def test_a_configured_kind_whose_address_was_not_passed_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """A manager's [::]:5222 is not 0.0.0.0:5222; and what is then plain must not be taken for a balancer's."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        here = ListenAddress(*sock.getsockname())
        elsewhere = ListenAddress("0.0.0.0", here.port, ListenKind.PROXY_PROTOCOL)
        assert take_over([sock], [elsewhere, here]) == [(here, sock)]
    assert f"proxy://0.0.0.0:{here.port} was not passed" in caplog.text
    assert str(here) in caplog.text


def test_a_name_that_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(listener.socket, "getaddrinfo", unknown)
    with pytest.raises(AddressProblem, match=r"no-such\.example is not known here"):
        open_listeners([ListenAddress("no-such.example", 5222)])


def test_counting_in_and_out() -> None:
    async def main() -> None:
        admissions = Admissions(sessions_max=3, sessions_per_address_max=2, names_per_address_max=9)
        first, _ = admissions.enter("192.0.2.1"), admissions.enter("192.0.2.1")
        assert admissions.refusal_of("192.0.2.1") == Refusal(RefusalReason.SESSIONS_PER_ADDRESS_MAX, 2)
        assert admissions.refusal_of("192.0.2.2") is None
        admissions.enter("192.0.2.2")
        assert admissions.refusal_of("192.0.2.3") == Refusal(RefusalReason.SESSIONS_MAX, 3)
        first()
        assert admissions.refusal_of("192.0.2.1") is None
        assert admissions.count == 2

    trio.run(main)


def test_an_address_whose_strangers_brought_too_many_names() -> None:
    """Per /64 of IPv6, as sessions are counted; others are served, and what was brought is not forgotten."""
    admissions = Admissions(sessions_max=3, sessions_per_address_max=2, names_per_address_max=9)
    names = admissions.names_of("2001:db8::1")
    names.used = 9
    assert admissions.refusal_of("2001:db8::2") is None
    admissions.names_of("2001:db8::2").used += 1
    assert admissions.refusal_of("2001:db8::3") == Refusal(RefusalReason.NAMES_PER_ADDRESS_MAX, 9)
    assert admissions.refusal_of("2001:db8:0:1::1") is None


def test_the_addresses_whose_names_are_counted_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "ADDRESSES_MAX", 3)
    admissions = Admissions(sessions_max=3, sessions_per_address_max=2, names_per_address_max=9)
    for number in (1, 2, 3, 1, 4):
        admissions.names_of(f"192.0.2.{number}").used += 1
    assert admissions.names_of("192.0.2.1").used == 2
    assert admissions.names_of("192.0.2.2").used == 0


async def test_a_client_whose_address_brought_too_many_names_is_turned_away() -> None:
    with trio.fail_after(10):
        async with proxying(limits=SessionLimits(names_per_address_max=5)) as rig:
            client, server = await rig.pair()
            client.close()
            server.close()
            rig.proxy._admissions.names_of("127.0.0.1").used = 6
            with await rig.connect() as second:
                assert await receive_all(second) == b""
            refused = await rig.channel.wait_for(ConnectionRefused)
            assert (refused.reason, refused.limit) == (RefusalReason.NAMES_PER_ADDRESS_MAX, 5)


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (SessionLimits(sessions_max=1), RefusalReason.SESSIONS_MAX),
        (SessionLimits(sessions_per_address_max=1), RefusalReason.SESSIONS_PER_ADDRESS_MAX),
    ],
)
async def test_who_is_one_too_many_is_turned_away_and_may_come_back(
    limits: SessionLimits, reason: RefusalReason
) -> None:
    with trio.fail_after(10):
        async with proxying(limits=limits) as rig:
            client, server = await rig.pair()
            with client, server:
                with await rig.connect() as second:
                    assert await receive_all(second) == b""
                refused = await rig.channel.wait_for(ConnectionRefused)
                assert (refused.reason, refused.limit) == (reason, 1)
                assert refused.listener == rig.address
                await send_all(client, b"alive")
                assert await receive_exactly(server, 5) == b"alive"
            await rig.channel.wait_for(ConnectionClosed)
            await rig.proxy._admissions.nobody_left()
            client, server = await rig.pair()
            client.close()
            server.close()


async def test_too_many_names_are_given_up_and_sessions_go_on() -> None:
    assert renew_dictionary()
    kept = int(etree.memory_debugger.dict_size())  # type: ignore[attr-defined]
    with trio.fail_after(10):
        async with proxying(limits=SessionLimits(names_total_max=kept + 1_000)) as rig:
            first = await rig.pair()
            etree.fromstring(b"<r>" + b"".join(b"<given-up-%d/>" % number for number in range(2_000)) + b"</r>")
            second = await rig.pair()
            assert rig.proxy.names < kept + 1_000
            assert not rig.proxy.is_out_of_names
            (reached,) = rig.channel.of(LimitReached)
            assert isinstance(reached, LimitReached)
            assert (reached.limit, reached.closes) == ("sessions.names_total_max", False)
            for client, server in (first, second):
                await send_all(client, b"alive")
                assert await receive_exactly(server, 5) == b"alive"
                client.close()
                server.close()


async def test_when_too_many_names_are_kept_the_proxy_drains() -> None:
    with trio.fail_after(10):
        async with proxying(limits=SessionLimits(names_total_max=0)) as rig:
            with await rig.connect() as client:
                assert await receive_all(client) == b""
            refused = await rig.channel.wait_for(ConnectionRefused)
            assert refused.reason is RefusalReason.NAMES_TOTAL_MAX
            (reached,) = rig.channel.of(LimitReached)
            assert isinstance(reached, LimitReached)
            assert reached.limit == "sessions.names_total_max"
            assert await rig.ended() == 0


@contextmanager
def no_descriptors_left() -> Iterator[None]:
    """Use up what this process may open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as stack:
        lowest = stack.enter_context(socket.socket()).fileno() + 8
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
        with pytest.raises(OSError, match="Too many open files"):  # noqa: PT012 - how many fit is what is asked
            while True:
                stack.enter_context(socket.socket())
        yield


async def test_without_descriptors_clients_are_turned_away_and_others_live() -> None:
    with trio.fail_after(10):
        async with proxying() as rig:
            client, server = await rig.pair()
            late = socket.socket()
            late.setblocking(False)
            with client, server, late:
                with no_descriptors_left():
                    with pytest.raises(BlockingIOError):
                        late.connect((rig.address.ip, rig.address.port))
                    refused = await rig.channel.wait_for(ConnectionRefused)
                    assert (refused.reason, refused.limit) == (RefusalReason.DESCRIPTORS, None)
                    await send_all(client, b"alive")
                    assert await receive_exactly(server, 5) == b"alive"
                again, again_server = await rig.pair()
                again.close()
                again_server.close()


async def test_a_full_channel_stops_accepting() -> None:
    with trio.fail_after(10):
        async with proxying() as rig:
            rig.channel.fill()
            client = await rig.connect()
            await send_all(client, b"<")
            await trio.sleep(0.02)
            assert not rig.channel.events
            rig.channel.empty()
            (await rig.accept()).close()
            client.close()
