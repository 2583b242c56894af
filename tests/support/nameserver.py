"""A name server for tests without Debian's: answers from a table over UDP, NXDOMAIN for what is not in it."""

from collections.abc import Mapping

import attrs
import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import trio

from xproxy.config.address import HostPort

Table = Mapping[tuple[str, str], tuple[str, ...]]
"""(name without the last dot, type) -> records as in a zone file."""


@attrs.frozen
class NameServer:
    """Serves a table; ``rcode`` other than NOERROR answers everything so, ``silent`` nothing at all."""

    table: Table = attrs.field(factory=dict)
    rcode: int = dns.rcode.NOERROR
    silent: bool = False

    async def serve(self, *, task_status: trio.TaskStatus[HostPort]) -> None:
        """Serve on a loopback port, which is told."""
        with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as sock:
            await sock.bind(("127.0.0.1", 0))
            task_status.started(HostPort("127.0.0.1", sock.getsockname()[1]))
            while True:
                octets, peer = await sock.recvfrom(4_096)
                if not self.silent:
                    await sock.sendto(self._answer(dns.message.from_wire(octets)).to_wire(), peer)

    def _answer(self, query: dns.message.Message) -> dns.message.Message:
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.RA
        answer.set_rcode(dns.rcode.Rcode(self.rcode))
        question = query.question[0]
        name, kind = question.name.to_text(omit_final_dot=True), question.rdtype.name
        if records := self.table.get((name, kind)):
            answer.answer.append(dns.rrset.from_text(question.name, 60, "IN", kind, *records))
        elif not any(known == name for known, _ in self.table) and self.rcode == dns.rcode.NOERROR:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        return answer
