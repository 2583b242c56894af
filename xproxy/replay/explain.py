"""A finding as the failure a report shows: what differs, the two stanzas side by side, what went before, what to do.

Everything shown went through capture/hide.py; the report is scrubbed of known secrets besides.
"""

import difflib
from collections.abc import Iterator
from typing import Final

import attrs

from xproxy.capture.cassette import Event
from xproxy.capture.hide import hide
from xproxy.capture.node import Node, render_pretty
from xproxy.replay.match import filled
from xproxy.replay.playback import Finding, Playback
from xproxy.replay.report import Case, Failure, FailureKind, Report, one_line
from xproxy.replay.scrub import Scrubber

_ACCEPTABLE: Final = frozenset({FailureKind.MISMATCH, FailureKind.MISSING, FailureKind.UNEXPECTED})


def to_failure(finding: Finding, playback: Playback, accept: str | None, before: Finding | None = None) -> Failure:
    """Return the finding as a failure of the report. What stands under the one ``before`` it is not said again."""
    if before is not None and finding.history == before.history:
        finding = attrs.evolve(finding, history=())
    if before is not None and finding.bindings == before.bindings:
        finding = attrs.evolve(finding, bindings=())
    event = finding.event or finding.nearest
    return Failure(
        kind=finding.kind,
        message=one_line(finding.message),
        detail="\n".join(_detail(finding, playback, accept)),
        file=playback.cassette.file,
        line=event.line if event is not None else playback.cassette.session(finding.session).line,
    )


def _can_accept(finding: Finding) -> bool:
    return finding.acceptable and finding.kind in _ACCEPTABLE


def _detail(finding: Finding, playback: Playback, accept: str | None) -> Iterator[str]:
    for difference in finding.differences:
        yield f"@ {difference}"
    expected = finding.event or finding.nearest
    if finding.live is not None and expected is not None and expected.stanza is not None:
        yield from _unified(_shown(expected, playback), finding.live, expected)
    elif finding.live is not None:
        yield from (f"+ {line}" for line in render_pretty(finding.live))
    elif expected is not None and expected.stanza is not None:
        yield from (f"- {line}" for line in render_pretty(_shown(expected, playback)))
    if finding.score is not None and expected is not None:
        yield f"closest: #{expected.number} ({finding.score:.0%}) at {playback.cassette.file}:{expected.line or 1}"
    if finding.consumed is not None:
        line = finding.consumed.line or 1
        yield f"already consumed: #{finding.consumed.number} at {playback.cassette.file}:{line}"
    if finding.bindings:
        yield "bindings:"
        yield from (f"  ${{{key}}} = {value}" for key, value in finding.bindings)
    if finding.history:
        yield "last events (C client, S server):"
        yield from (f"  {line}" for line in finding.history)
    if accept is not None and _can_accept(finding):
        yield f"$ to accept what came: {accept}"


def _shown(event: Event, playback: Playback) -> Node:
    assert event.stanza is not None
    stanza = hide(event.stanza, bodies=playback.cassette.meta.bodies == "hidden")
    scope = (event.session, event.side.value)
    return filled(stanza, playback.bindings, scope, playback.clock(), lenient=True)


def _unified(expected: Node, live: Node, event: Event) -> Iterator[str]:
    lines = difflib.unified_diff(
        list(render_pretty(expected)), list(render_pretty(live)), f"recorded #{event.number}", "live", lineterm=""
    )
    yield from (line for line in lines if not line.startswith("@@"))


@attrs.frozen(kw_only=True)
class Played:
    """What a replay was, for the report."""

    playback: Playback
    seconds: dict[str, float]  # by session
    accept: str | None = None
    notes: tuple[tuple[str, str], ...] = ()  # properties of every case


def to_report(name: str, played: Played) -> Report:
    """Return the report: a case a session."""
    playback, cassette = played.playback, played.playback.cassette
    cases = []
    for session in cassette.sessions:
        found = [finding for finding in playback.findings if finding.session == session.name]
        first = next((finding for finding in found if _can_accept(finding)), None)  # the command is the same for all
        failures = [
            to_failure(finding, playback, played.accept if finding is first else None, before)
            for before, finding in zip([None, *found], found, strict=False)
        ]
        events = cassette.in_session(session.name)
        cases.append(
            Case(
                name=f"session {session.name}",
                file=cassette.file,
                line=session.line,
                failures=tuple(failures),
                notes=tuple(one_line(note) for name, note in playback.noted if name == session.name),
                seconds=played.seconds.get(session.name, 0.0),
                properties=(
                    ("xproxy.cassette", cassette.file),
                    ("xproxy.events", str(len(events))),
                    ("xproxy.matched", str(sum(_is_matched(event, playback) for event in events))),
                    ("xproxy.early", str(playback.early)),
                    ("xproxy.ignored", str(playback.ignored)),
                    ("xproxy.redaction", cassette.meta.redaction),
                    *played.notes,
                ),
            )
        )
    report = Report(name=name, cases=tuple(cases))
    return report.scrubbed(Scrubber(playback.passwords.values()))


def _is_matched(event: Event, playback: Playback) -> bool:
    return event.stanza is not None and not playback.is_ours(event) and playback.state(event).value == "done"
