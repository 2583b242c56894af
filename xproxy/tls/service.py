"""What the relay asks of TLS, answered from the settings: contexts for both legs, and who the server is.

One object serves all sessions. ``reload`` replaces what it knows at once or, on an error, not at all; a session that is
in the middle of its handshakes goes on with what it began with.
"""

import logging
import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import attrs
import trio

from xproxy.config.tls import TlsSettings
from xproxy.config.upstream import UpstreamSettings
from xproxy.errors import FileProblem, XproxyError
from xproxy.events.tls import CertificateFacts, TlsFailure
from xproxy.jid import is_ip_address
from xproxy.tls.authority import Authority, LeavesMaxReached, may_mint
from xproxy.tls.contexts import ClientLegContexts, ServerLegContexts
from xproxy.tls.credential import LeafFiles, ServerFiles
from xproxy.tls.failures import HandshakeRefused
from xproxy.tls.keylog import make_keylog
from xproxy.tls.verify import UpstreamIdentity, judge_upstream, refused_certificate, verify_upstream

log = logging.getLogger(__name__)

# As SSLSocket.version() names them.
_VERSIONS: Final = {"TLSv1": 0x0301, "TLSv1.1": 0x0302, "TLSv1.2": 0x0303, "TLSv1.3": 0x0304}


@attrs.frozen(kw_only=True)
class _Material:
    """What was read from files: replaced as a whole."""

    files: ServerFiles | None  # the server's own; None: the authority mints
    authority: Authority | None
    server_leg: ServerLegContexts


class TlsService:
    """Fills in ``xproxy.proxy.secure.Contexts``."""

    def __init__(
        self,
        settings: TlsSettings,
        upstream: UpstreamSettings,
        state: Path,
        *,
        on_leaves_max: Callable[[int], None] = lambda value: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Read every file; make the CA in ``state`` if it is needed and not there.

        ``on_leaves_max`` is told the value when a leaf could not be made for ``tls.leaves_max``.

        Raises:
            FileProblem: a file is missing, unreadable, or not what it should be.
        """
        self._settings = settings
        self._upstream = upstream
        self._state = state
        self._now = now
        self.on_leaves_max = on_leaves_max
        if settings.keylog_file is not None:
            make_keylog(settings.keylog_file)
        self._client_leg = ClientLegContexts(keylog=settings.keylog_file)
        self._material = self._read()

    @property
    def ca_file(self) -> Path | None:
        """The certificate that clients must trust; None with the server's own files."""
        authority = self._material.authority
        return authority.certificate_path if authority is not None else None

    def reload(self) -> None:
        """Read every file again. Raises FileProblem; then everything stays as it was."""
        material = self._read()
        self._client_leg.clear()
        self._material = material

    def _read(self) -> _Material:
        settings, upstream = self._settings, self._upstream
        files, authority = None, None
        if settings.certificate_file is not None:
            assert settings.key_file is not None  # config.check has seen to it
            files = ServerFiles.load(settings.certificate_file, settings.key_file, now=self._now)
        else:
            authority = Authority.open_(self._state, self._now, leaves_max=settings.leaves_max)
            if upstream.domain is not None and not is_ip_address(upstream.domain):
                # Before strangers can fill leaves_max with other names that the server's certificate covers.
                try:
                    authority.leaf(upstream.domain)
                except HandshakeRefused as refused:
                    path = authority.certificate_path
                    raise FileProblem(
                        f"the CA {path} cannot certify --domain {upstream.domain}: {refused.detail}",
                        f"move {path} and its key away and run xproxy certs init --domain {upstream.domain} for a new "
                        "CA, which clients must then trust",
                        path=path,
                    ) from refused
        server_leg = ServerLegContexts.load(
            upstream.ca_file, verify=upstream.verify == "full", keylog=settings.keylog_file
        )
        return _Material(files=files, authority=authority, server_leg=server_leg)

    # The server leg ---------------------------------------------------------------------------------------------

    def server_context(self, *, top_version: int, alpn: tuple[str, ...]) -> ssl.SSLContext:
        """Return a context for our handshake with the server. Raises HandshakeRefused."""
        return self._material.server_leg.get(top_version=top_version, alpn=alpn)

    def identify(self, tls: ssl.SSLSocket, domain: str | None) -> UpstreamIdentity:
        """Judge the server after the handshake: against the stream's domain, else against the configured one.

        Raises: HandshakeRefused.
        """
        domain = domain or self._upstream.domain
        server_leg = self._material.server_leg
        if server_leg.verify:
            return verify_upstream(tls, domain)
        return judge_upstream(tls, domain, authorities=server_leg.authorities, now=self._now())

    def refused_certificate(self, tls: ssl.SSLSocket) -> CertificateFacts | None:
        """Return the certificate that was refused in a handshake that failed."""
        return refused_certificate(tls)

    # The client leg ---------------------------------------------------------------------------------------------

    async def client_context(
        self,
        *,
        domain: str | None,
        server_name: str | None,
        identity: UpstreamIdentity | None,
        version: str,
        alpn: str | None,
    ) -> tuple[ssl.SSLContext, CertificateFacts]:
        """Return a context for the client's handshake, and the certificate in it.

        The server's own files, or a leaf for the first of ``domain``, ``server_name`` (the client's SNI) and the
        configured domain that may have one: the client compares with the domain it asked for.

        Raises: HandshakeRefused: there is no certificate for it.
        """
        material = self._material
        try:
            files: LeafFiles | None = material.files
            if files is None:
                assert material.authority is not None
                files = await self._leaf(material.authority, domain, server_name, identity)
            return self._client_leg.get(files, version=_VERSIONS[version], alpn=alpn), files.facts
        except XproxyError as problem:  # a disk is full, a limit is reached: this client cannot be served
            log.error("no certificate for a client: %s", problem)
            if isinstance(problem, LeavesMaxReached):
                self.on_leaves_max(problem.value)
            raise HandshakeRefused(TlsFailure.NO_CERTIFICATE, problem.message) from problem

    async def _leaf(
        self, authority: Authority, domain: str | None, server_name: str | None, identity: UpstreamIdentity | None
    ) -> LeafFiles:
        proven = identity.names if identity is not None and identity.is_proven else None
        for name in self._candidates(domain, server_name):
            if may_mint(name, self._upstream.domain, proven) and authority.permits(name):
                # Else files are read, or written and synced: not on the thread that serves everybody.
                leaf = authority.kept_leaf(name)
                return leaf if leaf is not None else await trio.to_thread.run_sync(authority.leaf, name)
        detail = "certificates are made for --domain and for names the verified server certificate bears, alone"
        if permitted := authority.permitted:
            detail += f"; and the CA may certify {', '.join(permitted)} only"
        raise HandshakeRefused(TlsFailure.NO_CERTIFICATE, detail)

    def _candidates(self, domain: str | None, server_name: str | None) -> Iterator[str]:
        for name in (domain, server_name, self._upstream.domain):
            if name is not None and not is_ip_address(name):
                yield name
