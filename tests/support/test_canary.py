"""The search for secrets must find them, or all its zeros mean nothing."""

import base64
import html
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.canary import Canary

SECRET = "canary «pass» & word"


@pytest.mark.parametrize(
    "written",
    [
        lambda secret: secret.encode(),
        lambda secret: secret.encode().hex().encode(),
        lambda secret: json.dumps({"x": secret}).encode(),
        lambda secret: f"<body>{html.escape(secret)}</body>".encode(),
        lambda secret: repr(["\n", secret]).encode(),
        lambda secret: base64.b64encode(b"\0user\0" + secret.encode()),
        lambda secret: base64.b64encode(b"\0user1\0" + secret.encode() + b"tail"),
        lambda secret: base64.b64encode(b"\0user12\0" + secret.encode() + b"tail2"),
        lambda secret: base64.urlsafe_b64encode(b"\xff\xff" + secret.encode()),
    ],
    ids=["plain", "hex", "json", "xml", "repr", "base64-0", "base64-1", "base64-2", "base64url"],
)
def test_a_secret_is_found_in_every_dress(tmp_path: Path, written: Callable[[str], bytes]) -> None:
    canary = Canary()
    canary.register("the word", SECRET)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "log").write_bytes(b"before " + written(SECRET) + b" after")
    (tmp_path / "other").write_bytes(written("canary «pass» + word"))
    assert canary.search([tmp_path]) == [f"{tmp_path / 'deep' / 'log'}: the word"]


def test_a_payload_is_found_as_sent_and_decoded() -> None:
    canary = Canary()
    payload = base64.b64encode(b"n,,n=alice,r=nonce-of-alice").decode()
    canary.register_payload("a payload", payload)
    assert canary.hits(b"response " + payload.encode()) == ["a payload"]
    assert canary.hits(b"message n,,n=alice,r=nonce-of-alice") == ["a payload"]
    assert canary.hits(b"message n,,n=alice,r=nonce-of-bob") == []
    canary.register_payload("an id that is no Base64", "c9:4e-21")
    assert canary.hits(b"id c9:4e-21") == ["an id that is no Base64"]
