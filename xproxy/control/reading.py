"""One HTTP request from octets, without I/O: what the control socket takes, and what it refuses."""

from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import attrs
import h11
import orjson

from xproxy.control.router import Document, Refused

HEADER_BYTES_MAX: Final = 16_384  # h11's own default: the request line and all headers
PARAMETERS_MAX: Final = 32  # of a query


@attrs.frozen(kw_only=True)
class Asked:
    """A request as it was sent."""

    method: str
    path: str
    query: dict[str, str]
    body: Document


class RequestReader:
    """Reads one request. ``connection`` is h11's, with which the answer is then rendered."""

    def __init__(self, body_bytes_max: int) -> None:
        self.connection = h11.Connection(h11.SERVER, max_incomplete_event_size=HEADER_BYTES_MAX)
        self._body_bytes_max = body_bytes_max
        self._head: h11.Request | None = None
        self._body = bytearray()

    @property
    def wants_continue(self) -> bool:
        """Whether the client waits for 100 Continue before it sends the body (RFC 9110 section 10.1.1)."""
        return self.connection.they_are_waiting_for_100_continue

    def feed(self, data: bytes) -> Asked | None:
        """Take octets, none at the end of input, and return the request when it is whole.

        What comes behind a whole request is not looked at.

        Raises:
            Refused: it will never be one.
            EOFError: the client ended before it was.
        """
        try:
            self.connection.receive_data(data)
            return self._next()
        except h11.RemoteProtocolError as error:
            raise Refused(error.error_status_hint, f"this is not HTTP/1.1: {error}") from error

    def _next(self) -> Asked | None:
        while True:
            event = self.connection.next_event()
            match event:
                case h11.NEED_DATA:
                    return None
                case h11.Request():
                    self._head = event
                case h11.Data():
                    self._body += event.data
                    if len(self._body) > self._body_bytes_max:
                        raise Refused(413, f"the request has more than {self._body_bytes_max} bytes")
                case h11.EndOfMessage():
                    assert self._head is not None, "h11 says so"
                    return _parse(self._head, bytes(self._body))
                case _:
                    raise EOFError


def _parse(head: h11.Request, body: bytes) -> Asked:
    try:
        target = urlsplit(head.target.decode("ascii"))
        query = dict(parse_qsl(target.query, keep_blank_values=True, max_num_fields=PARAMETERS_MAX))
    except ValueError as error:
        raise Refused(400, "the path cannot be read") from error
    return Asked(method=head.method.decode("ascii"), path=target.path, query=query, body=_object(body))


def _object(body: bytes) -> Document:
    if not body:
        return {}
    try:
        document: Any = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refused(400, "the body is no JSON") from error
    if not isinstance(document, dict):
        raise Refused(400, "the body is no JSON object")
    return document
