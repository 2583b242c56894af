"""Real handshakes that fail, and the event for each."""

import socket
import ssl
from datetime import UTC, datetime, timedelta

import pytest

from tests.support.handshake import client_hello, shake
from tests.support.mint import Mint
from xproxy.events import Side
from xproxy.events.tls import TlsFailure
from xproxy.tls.contexts import ServerLegContexts
from xproxy.tls.failures import HandshakeRefused, classify, failure_of
from xproxy.tls.hello import HelloIncomplete, HelloMalformed, parse_client_hello
from xproxy.tls.verify import refused_certificate


@pytest.fixture(scope="module")
def mint(tmp_path_factory):
    return Mint(tmp_path_factory.mktemp("mint"))


@pytest.fixture(scope="module")
def leaf(mint):
    return mint.leaf("example.org")


def server_context(leaf, low=ssl.TLSVersion.TLSv1_2, high=ssl.TLSVersion.TLSv1_3):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(leaf.certificate, leaf.key)
    context.minimum_version, context.maximum_version = low, high
    return context


def client_context(mint, low=ssl.TLSVersion.TLSv1_2, high=ssl.TLSVersion.TLSv1_3, *, trusting=True):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if trusting:
        context.load_verify_locations(mint.ca_file)
    context.minimum_version, context.maximum_version = low, high
    return context


def event(error, leg=Side.SERVER, **kwargs):
    return failure_of(error, leg, direct=False, seconds=0.5, **kwargs)


def upstream(mint, leaf, ca_file=None):
    """Shake hands as the server leg does, with a server that shows ``leaf``."""
    contexts = ServerLegContexts.load(ca_file or mint.ca_file, verify=True)
    return shake(contexts.get(top_version=0x0304, alpn=()), server_context(leaf), name="example.org")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda mint: mint.expired("example.org"), TlsFailure.CERTIFICATE_EXPIRED),
        (lambda mint: mint.self_signed("example.org"), TlsFailure.CERTIFICATE_SELF_SIGNED),
        (
            lambda mint: mint.leaf("example.org", label="later", not_after=datetime.now(UTC) + timedelta(days=40)),
            TlsFailure.CERTIFICATE_NOT_YET_VALID,
        ),
    ],
)
def test_the_servers_certificate_is_refused(mint, make, reason):
    leaf = make(mint)
    handshake = upstream(mint, leaf)
    shown = refused_certificate(handshake.client)
    failed = event(handshake.client_error, certificate=shown)
    assert failed.reason is reason
    assert failed.detail
    assert failed.alert is None
    assert failed.certificate is not None
    assert failed.certificate.sha256 == leaf.sha256


def test_the_servers_authority_is_unknown(mint, leaf, tmp_path):
    handshake = upstream(mint, leaf, ca_file=Mint(tmp_path).ca_file)
    assert event(handshake.client_error).reason is TlsFailure.CERTIFICATE_UNTRUSTED


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_rejects_our_authority(mint, leaf, version):
    handshake = shake(
        client_context(mint, trusting=False), server_context(leaf, low=version, high=version), name="example.org"
    )
    hello = parse_client_hello(handshake.from_client)
    failed = event(handshake.server_error, Side.CLIENT, hello=hello)
    assert failed.reason is TlsFailure.CLIENT_REJECTED_CERTIFICATE
    assert failed.alert == "unknown_ca"
    assert failed.server_name == "example.org"
    assert failed.ja4 == hello.ja4


def test_a_client_rejects_our_name(mint, leaf):
    handshake = shake(client_context(mint), server_context(leaf), name="other.example")
    failed = event(handshake.server_error, Side.CLIENT)
    assert failed.reason is TlsFailure.CLIENT_REJECTED_CERTIFICATE
    assert failed.alert == "bad_certificate"


def test_a_client_rejects_an_expired_certificate(mint):
    handshake = shake(client_context(mint), server_context(mint.expired("example.org")), name="example.org")
    failed = event(handshake.server_error, Side.CLIENT)
    assert (failed.reason, failed.alert) == (TlsFailure.CLIENT_REJECTED_CERTIFICATE, "certificate_expired")


def test_the_same_alert_from_a_server_is_a_peer_alert(mint, leaf):
    handshake = shake(client_context(mint, trusting=False), server_context(leaf), name="example.org")
    assert event(handshake.server_error, Side.SERVER).reason is TlsFailure.PEER_ALERT


def test_no_common_version_is_said_by_both(mint, leaf):
    handshake = shake(
        client_context(mint, high=ssl.TLSVersion.TLSv1_2),
        server_context(leaf, low=ssl.TLSVersion.TLSv1_3),
        name="example.org",
    )
    assert event(handshake.server_error, Side.CLIENT).reason is TlsFailure.VERSION
    told = event(handshake.client_error, Side.SERVER)
    assert (told.reason, told.alert) == (TlsFailure.VERSION, "protocol_version")


def test_no_common_cipher_is_a_peer_alert(mint, leaf):
    twelve = ssl.TLSVersion.TLSv1_2
    client = client_context(mint, high=twelve)
    client.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256")  # our certificate is ECDSA
    handshake = shake(client, server_context(leaf, high=twelve), name="example.org")
    told = event(handshake.client_error)
    assert (told.reason, told.alert) == (TlsFailure.PEER_ALERT, "handshake_failure")
    ours = event(handshake.server_error, Side.CLIENT)
    assert (ours.reason, ours.alert) == (TlsFailure.OTHER, None)
    assert ours.detail == "OpenSSL: NO_SHARED_CIPHER"


def over_sockets(context, answer, *, server_side=False):
    """Return how the handshake of ``context`` fails with a peer that sends ``answer`` and closes."""
    ours, peer = socket.socketpair()
    with ours, peer:
        peer.sendall(answer)
        peer.shutdown(socket.SHUT_WR)
        wrapped = context.wrap_socket(
            ours,
            server_side=server_side,
            do_handshake_on_connect=False,
            suppress_ragged_eofs=False,
            server_hostname=None if server_side else "example.org",
        )
        with wrapped, pytest.raises(OSError) as caught:  # noqa: PT011 - which one is the question
            wrapped.do_handshake()
        return caught.value


def test_the_server_closes_at_once(mint):
    assert event(over_sockets(client_context(mint), b"")).reason is TlsFailure.CLOSED


def test_the_client_closes_after_its_hello(mint, leaf):
    error = over_sockets(server_context(leaf), client_hello(), server_side=True)
    assert event(error, Side.CLIENT).reason is TlsFailure.CLOSED


def test_the_client_closes_within_its_hello(mint, leaf):
    error = over_sockets(server_context(leaf), client_hello()[:100], server_side=True)
    assert event(error, Side.CLIENT).reason is TlsFailure.CLOSED


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"<stream:error/>", b"SSH-2.0-x\r\n"])
def test_the_server_speaks_something_else(mint, answer):
    failed = event(over_sockets(client_context(mint), answer))
    assert failed.reason is TlsFailure.NOT_TLS
    assert answer.decode().strip() not in str(failed)


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (10, "unexpected_message"),
        (40, "handshake_failure"),
        (42, "bad_certificate"),
        (43, "unsupported_certificate"),
        (44, "certificate_revoked"),
        (45, "certificate_expired"),
        (46, "certificate_unknown"),
        (47, "illegal_parameter"),
        (48, "unknown_ca"),
        (49, "access_denied"),
        (50, "decode_error"),
        (51, "decrypt_error"),
        (70, "protocol_version"),
        (71, "insufficient_security"),
        (80, "internal_error"),
        (86, "inappropriate_fallback"),
        (109, "missing_extension"),
        (110, "unsupported_extension"),
        (112, "unrecognized_name"),
        (113, "bad_certificate_status_response"),
        (115, "unknown_psk_identity"),
        (116, "certificate_required"),
        (120, "no_application_protocol"),
    ],
)
def test_every_alert_has_its_name(mint, number, name):
    failed = event(over_sockets(client_context(mint), bytes((0x15, 3, 3, 0, 2, 2, number))))
    assert failed.alert == name
    assert failed.reason is (TlsFailure.VERSION if name == "protocol_version" else TlsFailure.PEER_ALERT)


def test_an_alert_nobody_knows_is_another_failure(mint):
    failed = event(over_sockets(client_context(mint), bytes((0x15, 3, 3, 0, 2, 2, 255))))
    assert (failed.reason, failed.alert) == (TlsFailure.OTHER, None)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (HandshakeRefused(TlsFailure.NO_CERTIFICATE, "why"), TlsFailure.NO_CERTIFICATE),
        (HelloIncomplete(5), TlsFailure.TRUNCATED_HELLO),
        (HelloMalformed("why"), TlsFailure.NOT_TLS),
        (HelloMalformed("why", TlsFailure.HELLO_TOO_LARGE), TlsFailure.HELLO_TOO_LARGE),
        (TimeoutError(), TlsFailure.TIMEOUT),
        (ConnectionResetError(104, "reset"), TlsFailure.CLOSED),
        (BrokenPipeError(32, "pipe"), TlsFailure.CLOSED),
        (EOFError(), TlsFailure.CLOSED),
        (ssl.SSLZeroReturnError(6, "closed"), TlsFailure.CLOSED),
        (ssl.SSLSyscallError(5, "failed"), TlsFailure.CLOSED),
        (ssl.SSLError(1, "unheard of"), TlsFailure.OTHER),
        (OSError(113, "no route"), TlsFailure.OTHER),
        (ValueError("server_hostname cannot be an empty string"), TlsFailure.OTHER),
    ],
)
def test_other_ways_to_fail(error, reason):
    failed = event(error, Side.CLIENT)
    assert failed.reason is reason
    assert "server_hostname" not in str(failed)


def test_system_errors_are_named():
    assert event(ConnectionResetError(104, "reset")).detail == "ECONNRESET"
    assert event(OSError(113, "no route")).detail == "EHOSTUNREACH"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (10, "expired"),
        (9, "not-yet-valid"),
        (18, "self-signed"),
        (19, "untrusted"),
        (20, "untrusted"),
        (62, "name-mismatch"),
    ],
)
def test_verification_codes_have_verdicts(code, words):
    assert classify(code)[1] == words
    assert classify(code)[0].value == f"certificate-{words}"
    assert classify(1_000) == (TlsFailure.CERTIFICATE_INVALID, "invalid")
