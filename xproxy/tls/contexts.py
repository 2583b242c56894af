"""OpenSSL contexts of both legs, made once and kept: one with the system's authorities takes 17 ms.

The client leg is pinned to the one version the server chose and answers ALPN with exactly what the server chose, so
that the client sees what it would have seen without us. The server leg offers what the client offered, as far as we
know the protocol, and no version above the client's. Both: no compression, no renegotiation, and no early data, which
CPython's ssl cannot do.

**Resumption.** The client leg gives out no tickets. A ticket lets a client come back without being shown a
certificate, so a record of the certificate it accepted would be a guess; XMPP sessions last for hours and gain nothing;
and a key that decrypts tickets, kept as long as a context, would weaken forward secrecy. (TLS 1.2 may still resume by
session id from memory for some minutes; CPython cannot switch that off, and the event says ``resumed``.) On the server
leg tickets are received and not used.
"""

import ssl
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Final, Generic, TypeVar

from xproxy.events.tls import TlsFailure
from xproxy.tls.credential import LeafFiles
from xproxy.tls.failures import HandshakeRefused
from xproxy.tls.verify import Authorities

CONTEXTS_MAX: Final = 64  # the server leg has 32 at most; a client leg has a few a domain
ALPN_KNOWN: Final = ("xmpp-client", "xmpp-server", "h2", "http/1.1")

TLS_1_2: Final = 0x0303
TLS_1_3: Final = 0x0304

Context = TypeVar("Context")


class _Cache(Generic[Context]):
    """The last ``CONTEXTS_MAX`` contexts. Making one is serialised: two sessions never make the same."""

    def __init__(self, size_max: int) -> None:
        self._size_max = size_max
        self._kept: OrderedDict[Hashable, Context] = OrderedDict()
        self._mutex = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], Context]) -> Context:
        with self._mutex:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            made = self._kept[key] = make()
            while len(self._kept) > self._size_max:
                self._kept.popitem(last=False)
            return made

    def clear(self) -> None:
        with self._mutex:
            self._kept.clear()

    def __len__(self) -> int:
        return len(self._kept)


class ClientLegContexts:
    """Contexts in which we are the server."""

    def __init__(self, *, contexts_max: int = CONTEXTS_MAX, keylog: Path | None = None) -> None:
        """``keylog``: the file of session keys (keylog.py)."""
        self._keylog = keylog
        self._cache: _Cache[ssl.SSLContext] = _Cache(contexts_max)

    def get(self, files: LeafFiles, *, version: int, alpn: str | None) -> ssl.SSLContext:
        """Return the context that shows ``files``, speaks ``version`` (0x0304 is TLS 1.3) only and answers ``alpn``.

        Raises: FileProblem if OpenSSL does not take the certificate.
        """
        key = (files.facts.sha256, files.key_path, version, alpn)
        return self._cache.get(key, lambda: _logging_keys(_client_leg(files, version, alpn), self._keylog))

    def clear(self) -> None:
        """Forget all: certificates were read anew. Sessions keep the context they have."""
        self._cache.clear()

    def __len__(self) -> int:
        """Return how many are kept."""
        return len(self._cache)


class ServerLegContexts:
    """Contexts in which we are the client, for one set of authorities."""

    def __init__(
        self,
        authorities: Authorities,
        *,
        verify: bool,
        minimum_version: int = TLS_1_2,
        contexts_max: int = CONTEXTS_MAX,
        keylog: Path | None = None,
    ) -> None:
        """``keylog``: the file of session keys (keylog.py)."""
        self._keylog = keylog
        self.authorities = authorities
        self.verify = verify
        self.minimum_version = minimum_version
        self._cache: _Cache[ssl.SSLContext] = _Cache(contexts_max)

    @classmethod
    def load(
        cls, ca_file: Path | None, *, verify: bool, minimum_version: int = TLS_1_2, keylog: Path | None = None
    ) -> "ServerLegContexts":
        """Return contexts that trust the authorities in ``ca_file``, or the system's.

        Raises: FileProblem.
        """
        return cls(Authorities.load(ca_file), verify=verify, minimum_version=minimum_version, keylog=keylog)

    def get(self, *, top_version: int, alpn: tuple[str, ...]) -> ssl.SSLContext:
        """Return the context that goes no higher than ``top_version`` and offers what of ``alpn`` we know.

        Raises: HandshakeRefused with VERSION where the client's highest is below the lowest we speak.
        """
        top = min(top_version, TLS_1_3)
        if top < self.minimum_version:
            detail = (
                f"the client speaks no version above {_name(top)}, the proxy none below {_name(self.minimum_version)}"
            )
            raise HandshakeRefused(TlsFailure.VERSION, detail)
        # In our order: a server chooses by its own preference, and so there are 32 contexts in all for 2 versions. They
        # fit the cache, and no client can have one with the system's authorities (26 ms) made for each connection.
        offer = tuple(name for name in ALPN_KNOWN if name in alpn)
        return self._cache.get((top, offer), lambda: self._make(top, offer))

    def __len__(self) -> int:
        """Return how many are kept."""
        return len(self._cache)

    def _make(self, top: int, offer: tuple[str, ...]) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        _harden(context)
        _set_versions(context, self.minimum_version, top)
        context.check_hostname = False  # names are compared in verify.py: an XMPP domain has more kinds of them
        context.verify_mode = ssl.CERT_REQUIRED if self.verify else ssl.CERT_NONE
        self.authorities.load_into(context)
        if offer:
            context.set_alpn_protocols(list(offer))
        return _logging_keys(context, self._keylog)


def _client_leg(files: LeafFiles, version: int, alpn: str | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _harden(context)
    _set_versions(context, version, version)
    context.options |= ssl.OP_NO_TICKET | ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_SINGLE_ECDH_USE
    context.num_tickets = 0
    files.load_into(context)
    if alpn is not None:
        context.set_alpn_protocols([alpn])
    return context


def _logging_keys(context: ssl.SSLContext, path: Path | None) -> ssl.SSLContext:
    if path is not None:
        context.keylog_filename = str(path)
    return context


def _harden(context: ssl.SSLContext) -> None:
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    # COMPAT(CPython before 3.11.3, its issue 95494): it sets this option, and a bare FIN reads as close_notify. Passed
    # on in kind, a client that lost its network would seem to leave in form, and its session could not be resumed.
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF


def _set_versions(context: ssl.SSLContext, low: int, high: int) -> None:
    if low < TLS_1_2:
        # COMPAT(old servers): asked for by configuration only; OpenSSL 3 allows it at security level 0 alone.
        context.set_ciphers("DEFAULT@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # below 1.2: the operator has decided
        context.minimum_version = ssl.TLSVersion(low)
        context.maximum_version = ssl.TLSVersion(high)


def _name(version: int) -> str:
    return {0x0300: "SSL 3.0", 0x0301: "TLS 1.0", 0x0302: "TLS 1.1", 0x0303: "TLS 1.2", 0x0304: "TLS 1.3"}.get(
        version, f"{version:#06x}"
    )
