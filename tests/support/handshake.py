"""TLS handshakes in memory: two OpenSSL engines, no sockets, no time."""

import ssl

import attrs


@attrs.frozen(kw_only=True)
class Handshake:
    """What came of one. An error is None where that side finished."""

    client: ssl.SSLObject
    server: ssl.SSLObject
    client_error: Exception | None
    server_error: Exception | None
    from_client: bytes  # what the client sent during it
    from_server: bytes


def shake(client: ssl.SSLContext, server: ssl.SSLContext, *, name: str | None = None) -> Handshake:
    """Shake hands between ``client``, which asks for ``name``, and ``server``."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client_out, server_out = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = {
        "client": client.wrap_bio(to_client, client_out, server_hostname=name),
        "server": server.wrap_bio(to_server, server_out, server_side=True),
    }
    sent = {"client": b"", "server": b""}
    errors: dict[str, Exception | None] = {}
    for _ in range(10):
        for side, out, peer_in in (("client", client_out, to_server), ("server", server_out, to_client)):
            if side not in errors:
                try:
                    ends[side].do_handshake()
                    errors[side] = None
                except ssl.SSLWantReadError:
                    pass
                except ssl.SSLError as error:
                    errors[side] = error
            if flight := out.read():
                sent[side] += flight
                peer_in.write(flight)
    assert len(errors) == 2, "the handshake did not come to an end"
    return Handshake(
        client=ends["client"],
        server=ends["server"],
        client_error=errors["client"],
        server_error=errors["server"],
        from_client=sent["client"],
        from_server=sent["server"],
    )


def client_hello(
    *, name: str | None = "example.org", alpn: tuple[str, ...] = (), top: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
) -> bytes:
    """Return the first flight of Python's own client."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = top
    if alpn:
        context.set_alpn_protocols(list(alpn))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    engine = context.wrap_bio(incoming, outgoing, server_hostname=name)
    try:
        engine.do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise AssertionError("a handshake with nobody")
