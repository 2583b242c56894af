import base64
import json
from xml.sax.saxutils import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xproxy.replay.scrub import MASK, Scrubber

SECRET = "p&ss'w<rd-é\\x"


@pytest.mark.parametrize(
    "form",
    [
        SECRET,
        escape(SECRET),
        json.dumps(SECRET),
        repr(SECRET),
        SECRET.encode().hex(),
        base64.b64encode(b"\0alice\0" + SECRET.encode()).decode(),
        base64.b64encode(b"\0bob\0" + SECRET.encode()).decode(),
        base64.urlsafe_b64encode(b"\0al\0" + SECRET.encode() + b"more").decode(),
    ],
)
def test_a_secret_is_found_in_every_form(form: str) -> None:
    scrub = Scrubber([SECRET])
    assert scrub.finds(f"<x>{form}</x>")
    assert MASK in scrub(f"<x>{form}</x>")
    assert not scrub.finds(scrub(f"<x>{form}</x>"))


def test_a_short_secret_is_a_whole_word() -> None:
    scrub = Scrubber(["pw"])
    assert scrub("pw pwd -pw-") == f"{MASK} pwd -{MASK}-"


def test_without_secrets_nothing_changes() -> None:
    assert Scrubber([])("anything") == "anything"
    assert Scrubber([""])("anything") == "anything"


@given(st.text(min_size=6), st.text(), st.text())
def test_what_was_scrubbed_holds_no_secret(secret: str, before: str, behind: str) -> None:
    scrub = Scrubber([secret])
    if secret not in MASK:
        assert secret not in scrub(before + secret + behind).replace(MASK, "\0")
