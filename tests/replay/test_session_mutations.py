"""No tolerance either in how sessions are made and left: TLS, mechanism, stream management, features, partings.

Each session of each cassette in tests/vectors, without its stanzas, is played by the fake client to the fake server,
one of the two with one fact changed; the other has to say so, in the words that name that fact, or the change is one of
``LET_PASS``. What is the same of several sessions is played once. The share is printed (``pytest -rP``).
"""

import collections
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
import trio

from tests.replay.conftest import PASSWORD
from tests.replay.test_client import REFUSED
from tests.replay.test_mutations import CASSETTES, VECTORS
from tests.support.peer import DOMAIN, Trust
from xproxy.capture.cassette import Account, Cassette, Event, Session, What, numbered
from xproxy.capture.cassette_xml import parse_cassette, read_cassette, render_cassette
from xproxy.capture.node import Node, make, render
from xproxy.config.replay import ReplaySettings
from xproxy.events import Side
from xproxy.replay.client import play_cassette
from xproxy.replay.partings import PARTINGS
from xproxy.replay.report import Report
from xproxy.replay.server import MECHANISMS, Listening, serve_cassette

LET_PASS = {
    "resource": "which resource a client asks for is its own business: addresses are bound to what it gets",
    "unplayable mechanism": "a recorded mechanism that cannot be played has to be another one (noted in the report)",
    "more mechanisms": "a server may offer more, unless --strict",
    "more features": "the same",
    "stream management offered": "the same: it is not asked for",
}
CAUGHT_SHARE_MIN = 0.65  # measured: 0.69 of those without features, 0.80 to 0.90 of those recorded
AT_ONCE = 24
PRESENCE = "{jabber:client}presence"
WAITED_FOR = (
    "no ",
    "tls ",
    "sm ",
    "close -> ",
    "drop -> ",
)  # in a fact: something does not come, and a step's time goes by
SETTINGS = ReplaySettings(step_seconds=3, total_seconds=20, linger_seconds=0.05, close_seconds_max=0.3)


@attrs.frozen
class Mutation:
    """One fact changed, and who plays what."""

    fact: str
    client: Cassette
    server: Cassette
    judge: Side  # the side that is played as recorded
    says: str  # what it has to say: a regular expression; or a key of LET_PASS
    strict: bool = False
    tls: bool = True

    @property
    def key(self) -> tuple[object, ...]:
        """What it is the same as in another session: of features nothing but the features matters."""
        if "feature" not in self.fact:
            return (self.fact, render_cassette(self.client), render_cassette(self.server))
        features = [
            [render(each) for each in (*session.login_features, *session.session_features)]
            for session in (*self.client.sessions, *self.server.sessions)
        ]
        return (self.fact, self.strict, str(features))


def alone(cassette: Cassette, session: Session) -> Cassette:
    """Return one session without its stanzas, with what a replay can play."""
    playable = tuple(name for name in session.mechanisms if name in MECHANISMS)
    events = [event for event in cassette.in_session(session.name) if event.stanza is None]
    for index, event in enumerate(events):
        if event.what in PARTINGS and event.side is Side.SERVER:  # it waits until the client has said something
            events.insert(index, attrs.evolve(event, what=What.STANZA, side=Side.CLIENT, stanza=make(PRESENCE)))
            break
    return Cassette(
        accounts=(Account(name="a", jid=f"juliet@{DOMAIN}"),),
        sessions=(attrs.evolve(session, name="s", account="a", domain=DOMAIN, mechanisms=playable, line=None),),
        events=numbered(attrs.evolve(event, session="s", comments=()) for event in events),
    )


def evolved(frame: Cassette, **changes: object) -> Cassette:
    return attrs.evolve(frame, sessions=(attrs.evolve(frame.sessions[0], **changes),))


def with_events(frame: Cassette, events: list[Event]) -> Cassette:
    return attrs.evolve(frame, events=numbered(events))


def in_place(frame: Cassette, event: Event, **changes: object) -> Cassette:
    changed = [attrs.evolve(each, **changes) if each is event else each for each in frame.events]
    return with_events(frame, changed)


def without(frame: Cassette, *gone: Event) -> Cassette:
    return with_events(frame, [each for each in frame.events if each not in gone])


def of_clients(frame: Cassette) -> Iterator[tuple[str, Cassette, str]]:
    """Yield what clients may do otherwise: (the fact, what is played, what has to be said)."""
    session = frame.sessions[0]
    for tls in {"starttls", "direct"} - {session.tls}:
        yield f"tls {session.tls} -> {tls}", evolved(frame, tls=tls), "the client came (by|in)"
    for other in [name for name in session.mechanisms if name != session.mechanism][:1]:
        says = "logged in by" if session.mechanism in (None, *MECHANISMS) else "unplayable mechanism"
        if session.mechanism is not None and session.refused is None:
            yield f"mechanism {session.mechanism} -> {other}", evolved(frame, mechanism=other), says
    words = {
        ("no", "yes"): "<enable/> of stream management was not recorded",
        ("no", "resume"): "<enable/> of stream management was not recorded",
        ("resume", "yes"): "without resumption",
        ("resume", "no"): "did not enable stream management|<resume> did not come",
    }
    resumes = [event for event in frame.events if event.what is What.RESUME]
    for (recorded, sm), says in words.items():
        if recorded == session.sm and session.refused is None:
            yield f"sm {recorded} -> {sm}", evolved(frame, sm=sm), says
    for event in frame.events:
        if event.what in PARTINGS and event.side is Side.CLIENT:
            other = What.DROP if event.what is What.CLOSE else What.CLOSE
            says = f"#{event.number} <{event.what.value}/>: the client .*recorded was"
            yield f"{event.what.value} -> {other.value}", in_place(frame, event, what=other), says
            if event is frame.events[-1]:
                yield "no parting", without(frame, event), "was still connected"
    login = next(event for event in frame.events if event.what is What.LOGIN)
    if not resumes and session.refused is None:
        yield "no login", without(frame, login), "<login> did not come"
        twin = attrs.evolve(session, name="t")
        again = [attrs.evolve(event, session="t") for event in frame.events]
        twice = attrs.evolve(frame, sessions=(session, twin), events=numbered([*frame.events[:2], *again]))
        yield "a login more", twice, "once more than was recorded"
    for event in resumes:
        connect = frame.events[event.number - 2]
        rest = [each for each in frame.events if each.number > event.number]
        yield "no resumption", without(frame, connect, event, *rest), "<resume> did not come|<connect> did not come"
    if session.refused is None:
        yield "resource", evolved(frame, resource="another"), "resource"


def of_servers(frame: Cassette) -> Iterator[tuple[str, Cassette, str, bool]]:
    """Yield what servers may do otherwise; the last says whether with --strict."""
    session = frame.sessions[0]
    for name in session.mechanisms:
        rest = tuple(each for each in session.mechanisms if each != name)
        if rest:
            yield f"mechanism {name} gone", evolved(frame, mechanisms=rest), f"offer a login by {name}", False
    for name in [each for each in MECHANISMS if each not in session.mechanisms][:1]:
        more = evolved(frame, mechanisms=(*session.mechanisms, name))
        yield "more mechanisms", more, "more mechanisms", False
        yield f"mechanism {name} more", more, "which was not recorded", True
    if session.refused is not None:
        yield (
            "refused otherwise",
            evolved(frame, refused="account-disabled"),
            "was refused with account-disabled",
            False,
        )
        return
    if session.sm == "resume":
        yield "sm resume -> yes", evolved(frame, sm="yes"), "without resumption", False
        yield "sm resume -> no", evolved(frame, sm="no"), "stream management", False
    elif session.sm == "no":
        yield "sm no -> yes", evolved(frame, sm="yes"), "stream management offered", False
    for stage in ("login_features", "session_features"):
        features: tuple[Node, ...] = getattr(session, stage)
        for index, feature in enumerate(features):
            for what, changed in changes(feature):
                kept = {stage: (*features[:index], *changed, *features[index + 1 :])}
                # A fake server with stream management offers it, listed or not.
                less = evolved(frame, **kept, **({"sm": "no"} if feature.local == "sm" else {}))
                yield f"feature {feature.local} {what}", less, "does not offer", False
        new = evolved(frame, **{stage: (*features, make("{urn:x}new"))})
        yield "more features", new, "more features", False
        yield f"{stage} more", new, "which was not recorded", True
    for event in frame.events:
        if event.what in PARTINGS and event.side is Side.SERVER:
            other = What.DROP if event.what is What.CLOSE else What.CLOSE
            yield f"{event.what.value} -> {other.value}", in_place(frame, event, what=other), "recorded was", False
            yield "no parting", without(frame, event), "was still connected", False


def changes(feature: Node) -> Iterator[tuple[str, tuple[Node, ...]]]:
    """Yield what may become of a feature."""
    yield "gone", ()
    yield "renamed", (make(feature.tag + "-x", feature.attributes, feature.content),)
    for name in feature.attributes:
        yield f"@{name} changed", (make(feature.tag, {**feature.attributes, name: "other"}, feature.content),)
        rest = {key: value for key, value in feature.attributes.items() if key != name}
        yield f"@{name} gone", (make(feature.tag, rest, feature.content),)
    if feature.content:
        yield "emptied", (make(feature.tag, feature.attributes),)


def mutations(frame: Cassette) -> Iterator[Mutation]:
    for fact, played, says in of_clients(frame):
        yield Mutation(f"client: {fact}", played, frame, Side.SERVER, says)
    for fact, played, says, strict in of_servers(frame):
        yield Mutation(f"server: {fact}", frame, played, Side.CLIENT, says, strict)
    yield Mutation("server: no TLS", frame, frame, Side.CLIENT, "TLS|tls", tls=False)


async def play(mutation: Mutation, trust: Trust) -> Report:
    """Play it; return what the judge found."""
    reports: dict[Side, Report] = {}
    passwords = {"a": PASSWORD}
    # Who shall not leave stays until the other side has lost patience.
    usual = SETTINGS if any(word in mutation.fact for word in WAITED_FOR) else attrs.evolve(SETTINGS, step_seconds=15)
    settings = attrs.evolve(usual, linger_seconds=10) if mutation.fact.endswith("no parting") else usual
    of_client, of_server = (usual, settings) if mutation.judge is Side.CLIENT else (settings, usual)
    async with trio.open_nursery() as nursery:

        async def serve(task_status: "trio.TaskStatus[Listening]") -> None:
            tls = trust.server if mutation.tls else None
            serve = functools.partial(serve_cassette, mutation.server, tls=tls, passwords=passwords)
            reports[Side.SERVER] = await serve(settings=of_server, task_status=task_status)

        listening: Listening = await nursery.start(serve)
        reports[Side.CLIENT] = await play_cassette(
            mutation.client,
            host=listening.address.host,
            port=listening.address.port,
            tls=trust.client,
            passwords=passwords,
            settings=of_client,
            contains=not mutation.strict,
        )
        if mutation.judge is Side.CLIENT:
            nursery.cancel_scope.cancel()
    return reports[mutation.judge]


Judged = list[tuple[Mutation, list[str]]]


async def judge(frames: list[Cassette], trust: Trust) -> dict[bytes, Judged]:
    """Play all mutations of all sessions, some at once; return what was said of each."""
    limit = trio.CapacityLimiter(AT_ONCE)
    said: dict[tuple[object, ...], list[str]] = {}

    async def one(mutation: Mutation) -> None:
        async with limit:
            report = await play(mutation, trust)
        said[mutation.key] = [failure.message for failure in report.failures]

    of_frames = {
        render_cassette(frame): [Mutation("nothing", frame, frame, Side.SERVER, ""), *mutations(frame)]
        for frame in frames
    }
    async with trio.open_nursery() as nursery:
        for mutation in {each.key: each for several in of_frames.values() for each in several}.values():
            nursery.start_soon(one, mutation)
    return {frame: [(each, said[each.key]) for each in several] for frame, several in of_frames.items()}


def frames_of(cassette: Cassette) -> list[Cassette]:
    return [alone(cassette, session) for session in cassette.sessions]


@pytest.fixture(scope="module")
def found(trust: Trust) -> dict[bytes, Judged]:
    cassettes = [*(read_cassette(path) for path in CASSETTES), parse_cassette(REFUSED.encode())]
    different = {render_cassette(frame): frame for cassette in cassettes for frame in frames_of(cassette)}
    return trio.run(judge, list(different.values()), trust)


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    [*CASSETTES, None],
    ids=lambda path: f"{path.parent.name}/{path.name.partition('.')[0]}" if path else "refused",
)
def test_each_mutation_of_a_session_is_caught_or_let_pass_by_name(
    path: Path | None, found: dict[bytes, Judged]
) -> None:
    cassette = parse_cassette(REFUSED.encode()) if path is None else read_cassette(path)
    caught, passed, wrong = 0, collections.Counter[str](), []
    for frame in frames_of(cassette):
        for mutation, messages in found[render_cassette(frame)]:
            if mutation.fact == "nothing" or mutation.says in LET_PASS:
                wrong += [f"{mutation.fact}: {message}" for message in messages]
                passed[mutation.says] += mutation.says in LET_PASS
            elif any(re.search(mutation.says, message) for message in messages):
                caught += 1
            else:
                wrong.append(f"{mutation.fact} was not noticed; said was {messages}")
    assert wrong == []
    passed = +passed
    total = caught + passed.total()
    listed = ", ".join(f"{name} {count}" for name, count in passed.most_common())
    where = "refused" if path is None else path.relative_to(VECTORS)
    print(f"{where}: {caught} of {total} mutations of its sessions caught ({caught / total:.1%}); let pass: {listed}")
    assert caught >= 6
    assert caught / total >= CAUGHT_SHARE_MIN
