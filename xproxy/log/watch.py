"""What an operator is told on stderr of servers that cannot be reached."""

import logging
from collections.abc import Sequence
from typing import Final

from xproxy.config.address import HostPort
from xproxy.config.upstream import UpstreamAddress, UpstreamFrom
from xproxy.events.connection import UpstreamConnected, UpstreamFailed
from xproxy.record.document import Document
from xproxy.record.recorder import Record

log = logging.getLogger(__name__)

SERVERS_WATCHED_MAX: Final = 100  # of those that clients choose; who cannot reach more has another problem
# Reasons of ``upstream-failed`` that say nothing of a server.
_OF_THE_CLIENT: Final = frozenset({"no-domain", "domain-not-allowed", "address-not-allowed", "loop"})


class UpstreamWatch:
    """An output that says on stderr, for the operator, when a server cannot be reached and when it can again."""

    def __init__(self, upstream: UpstreamAddress, listed: frozenset[str] | None = None) -> None:
        """``listed``: the domains whose servers are the operator's business, in lower case; None: all."""
        self.name = "diagnostics"
        self._upstream = upstream
        self._listed = listed
        self._down: set[str] = set()

    def take(self, records: Sequence[Record]) -> None:
        """Look at what passes."""
        for record in records:
            if record.action == UpstreamFailed.action:
                self._failed(record.document)
            elif record.action == UpstreamConnected.action and self._down:
                server = self._server(record.document)
                if server in self._down:
                    self._down.remove(server)
                    log.warning("the server %s can be reached again", server)

    def _failed(self, document: Document) -> None:
        reason, server = document["event"]["reason"], self._server(document)
        if reason in _OF_THE_CLIENT or server in self._down or len(self._down) >= SERVERS_WATCHED_MAX:
            return
        if self._listed is not None and str(document.get("xmpp", {}).get("domain")).lower() not in self._listed:
            return
        self._down.add(server)
        log.warning(
            "the server %s cannot be reached (%s), clients are turned away until it can: start it, or check --upstream",
            server,
            reason,
        )

    def _server(self, document: Document) -> str:
        """Which server it is: the one there is, the one of a domain, or one that a client dialled."""
        match self._upstream:
            case HostPort():
                return str(self._upstream)
            case UpstreamFrom.SRV:
                return f"of {document.get('xmpp', {}).get('domain', 'a domain')}"
            case UpstreamFrom.ORIGINAL:
                place = document.get("destination", {})
                return f"{place.get('address', 'somewhere')} port {place.get('port', '')}".strip()

    def flush(self) -> None:
        """Nothing to do."""

    def reopen(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""
