import contextlib
import itertools
import socket
import ssl
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.ends import is_bare
from tests.support.handshake import shake
from tests.support.mint import Mint
from xproxy.events.tls import TlsFailure
from xproxy.tls.contexts import ALPN_KNOWN, CONTEXTS_MAX, TLS_1_2, TLS_1_3, ClientLegContexts, ServerLegContexts
from xproxy.tls.credential import ServerFiles
from xproxy.tls.failures import HandshakeRefused


@pytest.fixture(scope="module")
def mint(tmp_path_factory):
    return Mint(tmp_path_factory.mktemp("mint"))


@pytest.fixture(scope="module")
def files(mint):
    leaf = mint.leaf("example.org")
    return ServerFiles.load(leaf.certificate, leaf.key)


@pytest.fixture
def client(mint):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(mint.ca_file)
    context.set_alpn_protocols(["h2", "xmpp-client"])
    return context


@pytest.mark.parametrize(("version", "name"), [(TLS_1_2, "TLSv1.2"), (TLS_1_3, "TLSv1.3")])
@pytest.mark.parametrize("alpn", [None, "xmpp-client", "h2"])
def test_client_leg_speaks_one_version_and_answers_alpn(files, client, version, name, alpn):
    handshake = shake(client, ClientLegContexts().get(files, version=version, alpn=alpn), name="example.org")
    assert handshake.client_error is handshake.server_error is None
    assert handshake.server.version() == name
    assert handshake.client.selected_alpn_protocol() == alpn


def test_a_client_of_tls_1_2_meets_a_leg_pinned_to_1_3(files, client):
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    handshake = shake(client, ClientLegContexts().get(files, version=TLS_1_3, alpn=None), name="example.org")
    assert isinstance(handshake.client_error, ssl.SSLError)
    assert isinstance(handshake.server_error, ssl.SSLError)


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])
def test_client_leg_gives_no_tickets(files, client, version):
    context = ClientLegContexts().get(files, version=version, alpn=None)
    handshake = shake(client, context, name="example.org")
    handshake.server.write(b"x")
    session = handshake.client.session
    assert session is None or not session.has_ticket
    assert context.num_tickets == 0


def test_both_legs_refuse_renegotiation_and_compression(mint, files):
    server_leg = ServerLegContexts.load(mint.ca_file, verify=True).get(top_version=TLS_1_3, alpn=())
    for context in (server_leg, ClientLegContexts().get(files, version=TLS_1_2, alpn=None)):
        assert context.options & ssl.OP_NO_RENEGOTIATION
        assert context.options & ssl.OP_NO_COMPRESSION


def test_both_legs_tell_a_bare_fin_from_close_notify(mint, files, client):
    real = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    files.load_into(real)
    server_leg = ServerLegContexts.load(mint.ca_file, verify=True).get(top_version=TLS_1_3, alpn=())
    client_leg = ClientLegContexts().get(files, version=TLS_1_3, alpn=None)
    for ours, theirs in ((server_leg, real), (client_leg, client)):
        assert not ours.options & ssl.OP_IGNORE_UNEXPECTED_EOF
        for close_notify in (False, True):
            with both_ends(ours, theirs) as (our_end, their_end):
                if close_notify:
                    their_end.setblocking(False)
                    with pytest.raises(ssl.SSLWantReadError):
                        their_end.unwrap()
                their_end.close()
                if close_notify:
                    assert our_end.recv(1) == b""
                else:
                    with pytest.raises(ssl.SSLError) as caught:
                        our_end.recv(1)
                    assert is_bare(caught.value)


@contextlib.contextmanager
def both_ends(ours, theirs):
    """Return both ends of a connection after their handshake, ours first."""
    sockets = socket.socketpair()
    with ThreadPoolExecutor(2) as pool:
        ends = pool.map(wrap, sockets, (ours, theirs))
        with contextlib.ExitStack() as stack:
            yield [stack.enter_context(end) for end in ends]


def wrap(sock, context):
    serving = context.protocol is ssl.PROTOCOL_TLS_SERVER
    sock.settimeout(5)
    return context.wrap_socket(
        sock, server_side=serving, server_hostname=None if serving else "example.org", suppress_ragged_eofs=False
    )


@pytest.mark.parametrize(("top", "name"), [(TLS_1_2, "TLSv1.2"), (TLS_1_3, "TLSv1.3"), (0x0305, "TLSv1.3")])
def test_server_leg_goes_no_higher_than_the_client(mint, files, top, name):
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    files.load_into(server)
    server.set_alpn_protocols(["http/1.1", "xmpp-client"])
    contexts = ServerLegContexts.load(mint.ca_file, verify=True)
    offer = ("unheard-of", "xmpp-client", "http/1.1", "xmpp-client")
    handshake = shake(contexts.get(top_version=top, alpn=offer), server, name="example.org")
    assert handshake.client_error is None
    assert handshake.client.version() == name
    assert handshake.client.selected_alpn_protocol() == "http/1.1"  # the server's order
    assert b"unheard-of" not in handshake.from_client


def test_server_leg_offers_no_alpn_where_the_client_offered_none(mint, files):
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    files.load_into(server)
    server.set_alpn_protocols(["xmpp-client"])
    contexts = ServerLegContexts.load(mint.ca_file, verify=True)
    handshake = shake(contexts.get(top_version=TLS_1_3, alpn=("unheard-of",)), server, name="example.org")
    assert handshake.client.selected_alpn_protocol() is None


def test_a_client_below_the_minimum_is_refused(mint):
    contexts = ServerLegContexts.load(mint.ca_file, verify=True)
    with pytest.raises(HandshakeRefused, match=r"TLS 1\.1") as caught:
        contexts.get(top_version=0x0302, alpn=())
    assert caught.value.failure is TlsFailure.VERSION


def test_a_lower_minimum_reaches_an_old_server(mint, files):
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    files.load_into(server)
    server.set_ciphers("DEFAULT@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        server.minimum_version = server.maximum_version = ssl.TLSVersion.TLSv1_1
    contexts = ServerLegContexts.load(mint.ca_file, verify=True, minimum_version=0x0301)
    handshake = shake(contexts.get(top_version=TLS_1_3, alpn=()), server, name="example.org")
    assert handshake.client_error is None
    old = ClientLegContexts().get(files, version=0x0302, alpn=None)
    assert shake(contexts.get(top_version=TLS_1_3, alpn=()), old, name="example.org").server.version() == "TLSv1.1"


def test_contexts_are_kept(mint, files):
    client_leg, server_leg = ClientLegContexts(), ServerLegContexts.load(mint.ca_file, verify=True)
    assert client_leg.get(files, version=TLS_1_3, alpn=None) is client_leg.get(files, version=TLS_1_3, alpn=None)
    assert client_leg.get(files, version=TLS_1_3, alpn=None) is not client_leg.get(files, version=TLS_1_2, alpn=None)
    same = server_leg.get(top_version=TLS_1_3, alpn=("h2",))
    assert server_leg.get(top_version=0x0399, alpn=("h2", "unheard-of", "h2")) is same  # what matters is the same
    assert len(server_leg) == 1


def test_no_offer_makes_more_contexts_than_are_kept(mint):
    contexts = ServerLegContexts.load(mint.ca_file, verify=True)
    offers = [offer for count in range(5) for offer in itertools.permutations(ALPN_KNOWN, count)]
    made = {id(contexts.get(top_version=top, alpn=offer)) for offer in offers for top in (TLS_1_2, TLS_1_3)}
    assert len(made) == len(contexts) == 32
    assert len(contexts) <= CONTEXTS_MAX


def test_clear_makes_them_anew(files):
    contexts = ClientLegContexts()
    before = contexts.get(files, version=TLS_1_3, alpn=None)
    contexts.clear()
    assert contexts.get(files, version=TLS_1_3, alpn=None) is not before


def test_the_least_used_goes(files):
    contexts = ClientLegContexts(contexts_max=2)
    first = contexts.get(files, version=TLS_1_3, alpn=None)
    contexts.get(files, version=TLS_1_3, alpn="a")
    assert contexts.get(files, version=TLS_1_3, alpn=None) is first
    contexts.get(files, version=TLS_1_3, alpn="b")
    assert len(contexts) == 2
    assert contexts.get(files, version=TLS_1_3, alpn=None) is first


def test_a_replaced_file_is_not_shown_until_it_is_read(mint, client, tmp_path):
    first, second = mint.leaf("example.org", label="first"), mint.leaf("example.org", label="second")
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    certificate.write_bytes(first.certificate.read_bytes())
    key.write_bytes(first.key.read_bytes())
    files = ServerFiles.load(certificate, key)
    certificate.write_bytes(second.certificate.read_bytes())  # and the key not yet
    handshake = shake(client, ClientLegContexts().get(files, version=TLS_1_3, alpn=None), name="example.org")
    assert handshake.client_error is None
    assert files.facts.sha256 == first.sha256
