"""TLS for the relay: the certificate clients see, the judgement of the server, and the contexts of both legs.

``xproxy.tls`` has the parts; here is the choice that needs a session: which name a certificate is shown for.
"""

import ssl
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Final

import trio

from xproxy.errors import XproxyError
from xproxy.events.tls import CertificateFacts, TlsFailure
from xproxy.tls.authority import Authority, may_mint
from xproxy.tls.contexts import TLS_1_2, TLS_1_3, ClientLegContexts, ServerLegContexts
from xproxy.tls.credential import LeafFiles, ServerFiles
from xproxy.tls.failures import HandshakeRefused
from xproxy.tls.verify import UpstreamIdentity, judge_upstream, refused_certificate, verify_upstream

_VERSIONS: Final = {"TLSv1.3": TLS_1_3, "TLSv1.2": TLS_1_2, "TLSv1.1": 0x0302, "TLSv1": 0x0301}
_NAMES_REMEMBERED: Final = 1_000  # as many as leaves_max by default


class TlsContexts:
    """What ``Proxy`` is given for TLS."""

    def __init__(
        self,
        *,
        certificates: Authority | ServerFiles,
        server_leg: ServerLegContexts,
        domain: str | None,
        now: Callable[[], datetime],
    ) -> None:
        """``certificates``: the local CA, or the server's own files. ``domain``: ``--domain``. ``now``: aware."""
        self._certificates = certificates
        self._client_leg = ClientLegContexts()
        self._server_leg = server_leg
        self._domain = domain
        self._now = now
        self._minted: set[str] = set()

    def reload(self, *, certificates: Authority | ServerFiles, server_leg: ServerLegContexts | None = None) -> None:
        """Use these from the next handshake on."""
        self._certificates = certificates
        self._client_leg.clear()
        self._minted.clear()
        if server_leg is not None:
            self._server_leg = server_leg

    def server_context(self, *, top_version: int, alpn: tuple[str, ...]) -> ssl.SSLContext:
        """Return a context for our handshake with the server. Raises HandshakeRefused."""
        return self._server_leg.get(top_version=top_version, alpn=alpn)

    def identify(self, tls: ssl.SSLSocket, domain: str | None) -> UpstreamIdentity:
        """Judge the server after the handshake. Raises HandshakeRefused."""
        if self._server_leg.verify:
            return verify_upstream(tls, domain)
        return judge_upstream(tls, domain, authorities=self._server_leg.authorities, now=self._now())

    def refused_certificate(self, tls: ssl.SSLSocket) -> CertificateFacts | None:
        """Return the certificate that was refused in a handshake that failed."""
        return refused_certificate(tls)

    async def client_context(
        self, *, domain: str | None, server_name: str | None, identity: UpstreamIdentity, version: str, alpn: str | None
    ) -> tuple[ssl.SSLContext, CertificateFacts]:
        """Return a context for the client's handshake and the certificate in it. Raises HandshakeRefused."""
        source = self._certificates
        try:
            files = await self._leaf(source, domain, server_name, identity) if isinstance(source, Authority) else source
            return self._client_leg.get(files, version=_VERSIONS[version], alpn=alpn), files.facts
        except XproxyError as error:  # a disk that is full, a directory that holds as many leaves as it may
            raise HandshakeRefused(TlsFailure.NO_CERTIFICATE, str(error)) from error

    async def _leaf(
        self, authority: Authority, domain: str | None, server_name: str | None, identity: UpstreamIdentity
    ) -> LeafFiles:
        """The certificate for the first of the names in question that we may certify."""
        proven = identity.names if identity.is_proven else None
        for name in self._candidates(domain, server_name):
            if may_mint(name, self._domain, proven):
                if name in self._minted:
                    return authority.leaf(name)
                # The first time files are written and synced: not in the thread that moves everybody's bytes.
                leaf = await trio.to_thread.run_sync(authority.leaf, name)
                if len(self._minted) > _NAMES_REMEMBERED:
                    self._minted.clear()
                self._minted.add(name)
                return leaf
        raise HandshakeRefused(TlsFailure.NO_CERTIFICATE, "a certificate may only be made for a name the server proves")

    def _candidates(self, domain: str | None, server_name: str | None) -> Iterator[str]:
        """The stream's own name counts (RFC 6120 section 13.7.2.1), then what the client called us."""
        yield from (name for name in (domain, server_name, self._domain) if name is not None)
