"""Invariant: octets are a cassette that is written and read back as the same one, or CassetteInvalid with lines.

Besides: each stanza of it, filled in, matches itself, and differs from itself with an element more.
"""

import sys
from datetime import UTC, datetime

import harness

with harness.instrumented():
    from xproxy.capture.cassette import Cassette
    from xproxy.capture.cassette_xml import CassetteInvalid, parse_cassette, render_cassette
    from xproxy.capture.node import make
    from xproxy.replay.bindings import Bindings, CannotRender
    from xproxy.replay.match import Context, differences, filled, matches
    from xproxy.replay.patience import Patience
    from xproxy.replay.strip import strip_cassette

NOW = datetime(2026, 11, 25, tzinfo=UTC)
STANZAS_MAX = 20
PATTERN_SECONDS = 0.01
WORDS = [
    word.encode()
    for word in (
        "${any}", "${any:", "(a|aa)*[^a]", ".*a", "(?i:", "{1,3}", "{e}", "[^a]",
        "${id:1}", "${jid:a}", "${res:a}", "${time:60}", "${int=1}", "${secret:a}", "${url:1}",
        "$${", "}", "<client in='a'>", "</client>", "<server in='a'>", "</server>", "<expect-none in='a' for='1'/>",
        "<!-- -->", "<?pi?>", "<![CDATA[", "]]>", "&#13;", "&amp;", "x:strict='no'", "x:skip='yes'",
        "xmlns='jabber:client'", "xml:lang='en'", "order='strict'", "optional='yes'", "version='3'", "<login in='a'/>",
        "<close in='a' by='client'/>",
    )
]  # fmt: skip


def check(data: bytes) -> None:
    """Judge one file."""
    try:
        cassette = parse_cassette(data)
    except CassetteInvalid as error:
        judge_problems(error)
        return
    written = render_cassette(cassette)
    again = parse_cassette(written)
    assert again == cassette, "it is read back as another"
    assert render_cassette(again) == written, "its bytes are not stable"
    stripped = strip_cassette(cassette, bodies=True)
    assert parse_cassette(render_cassette(stripped)) == stripped
    judge_matching(cassette)


def judge_problems(error: CassetteInvalid) -> None:
    """What is said of a file that is no cassette."""
    assert error.problems
    assert all(problem.message for problem in error.problems)


def judge_matching(cassette: Cassette) -> None:
    """What is sent of a stanza matches the stanza."""
    bindings = Bindings(
        jids={session.name: f"{session.name}@x.test/r" for session in cassette.sessions},
        secrets={account.name: "password" for account in cassette.accounts},
    )
    for event in [event for event in cassette.events if event.stanza is not None][:STANZAS_MAX]:
        assert event.stanza is not None
        scope = (event.session, event.side.value)
        try:
            live = filled(event.stanza, bindings, scope, NOW)
        except CannotRender:
            continue
        for value in [value for node in event.stanza.iter() for value in node.attributes.values() if "any:" in value]:
            for text in ("", "a", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!", live.tag):  # whatever the pattern: it comes back
                Bindings(patience=Patience(PATTERN_SECONDS)).takes(value, text, scope, NOW)
        if "any:" in repr(event.stanza) or "=" in repr(event.stanza):
            continue  # a sample need not be of the kind it stands for
        assert matches(event.stanza, live, Context(bindings.copy(), scope, NOW)), "it does not match itself"
        more = make(live.tag, live.attributes, (*live.content, make("{more}more")))
        if event.stanza.strict and not event.stanza.skip:
            assert differences(event.stanza, more, Context(bindings.copy(), scope, NOW)), "more is no difference"


if __name__ == "__main__":
    sys.exit(harness.main("cassette", check, words=WORDS, quick=80_000))
