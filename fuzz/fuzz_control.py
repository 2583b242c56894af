"""Invariant: any octets at the control socket are a request, a refusal (4xx, 501), or an end, however they are cut.

Besides: what is a request is found in the table of resources or refused with 404 or 405, and its parameters are taken
or refused with 400; nothing else is raised.
"""

import sys
from collections.abc import Callable

import harness

with harness.instrumented():
    from xproxy.control.reading import Asked, RequestReader
    from xproxy.control.router import Caller, Document, Refused, Request, Router
    from xproxy.control.words import LEVELS, SORTS

WORDS = [
    b"GET ", b"PUT ", b"POST ", b" HTTP/1.1\r\n", b"/v1/", b"sessions", b"log-level", b"?sort=", b"&limit=",
    b"Host: x\r\n", b"Content-Length: ", b"Transfer-Encoding: chunked\r\n", b"Expect: 100-continue\r\n", b"\r\n\r\n",
    b'{"level":', b"%2f", b"1e999", b"NaN", b"[[[[", b"Connection: Upgrade\r\n",
]  # fmt: skip

BODY_BYTES_MAX = 512


async def nothing(request: Request) -> Document:
    """Never called."""
    raise AssertionError


def make_router() -> Router:
    """Return a table like that of a proxy."""
    router = Router()
    router.read("/v1/sessions", nothing)
    router.read("/v1/things/{name}", nothing)
    router.read("/v1/log-level", nothing)
    router.change("PUT", "/v1/log-level", nothing, what="log-level")
    return router


ROUTER = make_router()


def check(data: bytes) -> None:
    """Judge what one client sends before it ends."""
    rng = harness.rng_of(data)
    at = rng.randint(0, len(data))
    whole, cut = read([data]), read([data[:at], data[at:]])
    if isinstance(whole, Refused):
        # RFC 9112 section 6.1: 501 for a transfer coding that is not known.
        assert 400 <= whole.status < 500 or whole.status == 501
    assert isinstance(whole, Asked) == isinstance(cut, Asked), "it depends on the cut"
    if isinstance(whole, Asked):
        assert whole == cut
        use(whole)


def read(chunks: list[bytes]) -> Asked | Refused | None:
    """Return the request, the refusal, or None for an end."""
    reader = RequestReader(BODY_BYTES_MAX)
    try:
        for chunk in [*filter(None, chunks), b""]:
            if (asked := reader.feed(chunk)) is not None:
                return asked
    except Refused as refused:
        return refused
    except EOFError:
        return None
    raise AssertionError("neither a request nor an end")


def use(asked: Asked) -> None:
    """Do with a request what handlers do."""
    found = refusal_of(lambda: ROUTER.find(asked.method, asked.path))
    if found is not None:
        assert found.status in (404, 405)
        return
    _, parts = ROUTER.find(asked.method, asked.path)
    assert all(part and "/" not in part for part in parts.values())
    caller = Caller(pid=1, uid=1)
    request = Request(
        method=asked.method, path=asked.path, caller=caller, parts=parts, query=asked.query, body=asked.body
    )
    taken = refusal_of(lambda: take_parameters(request))
    assert taken is None or taken.status == 400


def take_parameters(request: Request) -> None:
    """Take what a handler may ask for."""
    request.only("sort", "limit", "level")
    limit = request.number("limit", most=100)
    assert limit is None or 0 <= limit <= 100
    assert request.text("sort") is None or isinstance(request.text("sort") in SORTS, bool)
    assert request.text("level") is None or isinstance(request.text("level") in LEVELS, bool)


def refusal_of(do: Callable[[], object]) -> Refused | None:
    """Return how ``do`` was refused; None: it was not."""
    try:
        do()
    except Refused as refused:
        return refused
    return None


if __name__ == "__main__":
    sys.exit(harness.main("control", check, words=WORDS, quick=150_000))
