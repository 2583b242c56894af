"""Requests from octets: the same however they are cut, and nothing but a request, a refusal or an end."""

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.chunks import chunkings, with_trailing
from xproxy.control.reading import Asked, RequestReader
from xproxy.control.router import Refused

REQUESTS = {
    b"GET /v1/sessions?sort=idle&limit=3 HTTP/1.1\r\nHost: x\r\n\r\n": Asked(
        method="GET", path="/v1/sessions", query={"sort": "idle", "limit": "3"}, body={}
    ),
    b'PUT /v1/log-level HTTP/1.1\r\nHost: x\r\nContent-Length: 17\r\n\r\n{"level":"debug"}': Asked(
        method="PUT", path="/v1/log-level", query={}, body={"level": "debug"}
    ),
    b"POST /v1/drain HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    b'5\r\n{"sec\r\n8\r\nonds":15\r\n1\r\n}\r\n0\r\n\r\n': Asked(
        method="POST", path="/v1/drain", query={}, body={"seconds": 15}
    ),
}


def read(chunks: list[bytes], body_bytes_max: int = 65_536) -> Asked | str:
    """Return what becomes of ``chunks`` and an end behind them."""
    reader = RequestReader(body_bytes_max)
    try:
        for chunk in [*chunks, b""]:
            if (asked := reader.feed(chunk)) is not None:
                return asked
    except Refused as refused:
        return f"{refused.status} {refused.message}"
    except EOFError:
        return "end"
    raise AssertionError("neither a request nor an end")


@pytest.mark.parametrize(("data", "wanted"), REQUESTS.items())
def test_a_request_is_the_same_in_every_cut(data: bytes, wanted: Asked) -> None:
    rng = random.Random(1)
    for chunks in [*chunkings(data, rng), *with_trailing(data, b"GET /v1/x HTTP/1.1\r\n\r\n", rng)]:
        assert read(chunks) == wanted


@pytest.mark.parametrize("data", REQUESTS)
def test_a_request_that_is_cut_short_is_an_end(data: bytes) -> None:
    for length in range(1, len(data)):
        outcome = read([data[:length]])
        assert outcome == "end" or (isinstance(outcome, str) and outcome.startswith("400"))


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=4))
def test_any_octets_are_a_request_a_refusal_or_an_end(data: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(data)]
    chunks = [data[a:b] for a, b in itertools.pairwise(edges) if a < b]
    whole, cut = read([data] if data else []), read(chunks)
    assert isinstance(whole, Asked) == isinstance(cut, Asked)


def test_a_body_is_counted_as_it_comes() -> None:
    head = b"PUT /v1/x HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
    reader = RequestReader(100)
    assert reader.feed(head) is None
    assert reader.feed(b" " * 100) is None
    with pytest.raises(Refused, match="more than 100 bytes"):
        reader.feed(b" ")
