"""``xproxy replay server`` and ``xproxy replay client``: a cassette against the living."""

import os
import shlex
import ssl
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import attrs
import click
import trio

from xproxy.capture.cassette import Cassette
from xproxy.capture.cassette_xml import read_cassette, render_cassette
from xproxy.cli.output import replace_file
from xproxy.cli.report import Format, emit, report_options, stamped
from xproxy.config.address import HostPort
from xproxy.config.replay import ReplaySettings
from xproxy.config.state import default_state_directory
from xproxy.errors import UsageProblem
from xproxy.peer.client import trusting
from xproxy.replay.client import play_cassette
from xproxy.replay.engine import Engine
from xproxy.replay.passwords import collect_passwords
from xproxy.replay.report import Report
from xproxy.replay.server import Listening, serve_cassette
from xproxy.tls.authority import Authority
from xproxy.tls.credential import ServerFiles

F = TypeVar("F", bound=Callable[..., Any])
_FILE: Final = click.Path(path_type=Path, dir_okay=False)
_DEFAULT: Final = ReplaySettings()
_DIRECTORY: Final = click.Path(path_type=Path, file_okay=False)


def _common(command: F) -> F:
    options = [
        click.argument("cassette", type=_FILE),
        click.option("--password", "passwords", multiple=True, metavar="NAME=VALUE",
                     help="The password of an account of the cassette; several times for several. Other users of the "
                     "machine see it in the list of processes: one that counts belongs into the file or the "
                     "environment."),
        click.option("--password-file", type=_FILE, metavar="FILE",
                     help="Lines NAME=VALUE, in a file that only you may read (chmod 600). Without either: the "
                     "environment, XPROXY_PASSWORD_NAME."),
        click.option("--step-seconds", type=click.FloatRange(0.05, 3600), default=_DEFAULT.step_seconds,
                     show_default=True, metavar="SECONDS", help="How long to wait for the next stanza."),
        click.option("--total-seconds", type=click.FloatRange(0.1, 86400), default=_DEFAULT.total_seconds,
                     show_default=True, metavar="SECONDS", help="How long the whole replay may take."),
        click.option("--pace", type=click.Choice(["fast", "recorded"]), default="fast", show_default=True,
                     help="recorded: with the pauses of the recording."),
        click.option("--gap-seconds-max", type=click.FloatRange(0, 3600), default=_DEFAULT.gap_seconds_max,
                     show_default=True, metavar="SECONDS", help="The longest pause with --pace recorded."),
        click.option("--linger-seconds", type=click.FloatRange(0, 60), default=_DEFAULT.linger_seconds,
                     show_default=True, metavar="SECONDS",
                     help="How long to wait, after the last stanza, for what should not come."),
        click.option("--close-seconds-max", type=click.FloatRange(0.05, 60), default=_DEFAULT.close_seconds_max,
                     show_default=True, metavar="SECONDS", help="How long the peer's closing tag may take after ours."),
        click.option("--unexpected", type=click.Choice(["fail", "ignore"]), default="fail", show_default=True,
                     help="What to do about stanzas that were not recorded."),
        click.option("--lenient", is_flag=True, help="How a session is made and left - direct TLS or STARTTLS, SASL "
                     "mechanism, stream management, features, parting - is noted where it differs, and no failure."),
        click.option("--match-seconds-max", type=click.FloatRange(0.01, 60), default=_DEFAULT.match_seconds_max,
                     show_default=True, metavar="SECONDS",
                     help="CPU time that one pattern ${any:REGEX} may take in all."),
        click.option("--accept", is_flag=True, help="Write into the cassette what came instead of what was recorded."),
    ]  # fmt: skip
    command = report_options(command)
    for option in reversed(options):
        command = option(command)
    return command


def _settings(options: dict[str, Any]) -> ReplaySettings:
    return ReplaySettings(**{field.name: options[field.name] for field in attrs.fields(ReplaySettings)})


@click.command()
@click.option("--listen", default="127.0.0.1:5222", show_default=True, metavar="HOST:PORT",
              help="Where clients connect; port 0 lets the system choose.")  # fmt: skip
@click.option("--state", type=_DIRECTORY, default=default_state_directory, metavar="DIR",
              help="Where the CA is kept that clients must trust: DIR/ca.pem.")  # fmt: skip
@click.option("--cert", type=_FILE, metavar="FILE", help="Another certificate (PEM); needs --key.")
@click.option("--key", type=_FILE, metavar="FILE", help="Its key.")
@click.option("--no-tls", is_flag=True, help="Offer no TLS.")
@click.option("--ready-file", type=_FILE, metavar="FILE", help="Written when it listens: the address.")
@_common
def server(cassette: Path, listen: str, state: Path, cert: Path | None, key: Path | None,
           no_tls: bool, ready_file: Path | None, passwords: tuple[str, ...], password_file: Path | None,
           format_: Format, junit: Path | None, **options: Any) -> None:  # fmt: skip
    """Play the server of a cassette: what clients say must be what was recorded.

    STARTTLS or direct TLS, as recorded, with a certificate of the local CA (`xproxy certs show`); logins by SCRAM or
    PLAIN with the passwords given here. It ends by itself when the cassette is played out, or when nothing comes.
    """
    played = read_cassette(cassette)
    address = _address(listen, "--listen")
    known = collect_passwords(played, passwords, password_file, os.environ)
    if ready_file is not None:
        ready_file.unlink(missing_ok=True)  # of an earlier run: whoever waits for it would come too early
    tls = None if no_tls else _server_tls(played, state, cert, key)
    acceptance = Acceptance(cassette) if options["accept"] else None
    play = partial(_serve, played, address, tls, known, _settings(options), ready_file, _taker(acceptance))
    click.get_current_context().exit(_run(play, format_, junit, acceptance))


class Acceptance:
    """What came instead of what was recorded, to be written into the cassette once the report is out."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._after: bytes | None = None

    def take(self, engine: Engine) -> None:
        """Keep what came, if it differs."""
        after = render_cassette(engine.accepted())
        if after != render_cassette(engine.cassette):
            self._after = after

    def write(self) -> None:
        """Write it. Raises: FileProblem."""
        if self._after is not None:
            replace_file(self._path, self._after)
            click.echo(f"xproxy: {self._path} was changed; look at the difference before you commit it", err=True)


def _taker(acceptance: Acceptance | None) -> Callable[[Engine], None]:
    return _nothing if acceptance is None else acceptance.take


def _nothing(engine: Engine) -> None:
    """Accept nothing."""


async def _serve(
    cassette: Cassette,
    address: HostPort,
    tls: ssl.SSLContext | None,
    passwords: dict[str, str],
    settings: ReplaySettings,
    ready_file: Path | None,
    accept: Callable[[Engine], None],
) -> Report:
    report: Report | None = None
    async with trio.open_nursery() as nursery:

        async def run(task_status: trio.TaskStatus[Listening]) -> None:
            nonlocal report
            report = await serve_cassette(
                cassette,
                tls=tls,
                passwords=passwords,
                host=address.host,
                port=address.port,
                settings=settings,
                accept=_again(),
                on_played=accept,
                task_status=task_status,
            )

        listening: Listening = await nursery.start(run)
        click.echo(f"xproxy: {cassette.file} waits for clients at {listening.address}", err=True)
        if ready_file is not None:
            replace_file(ready_file, f"{listening.address}\n".encode())
    assert report is not None
    return report


@click.command()
@click.option("--connect", required=True, metavar="HOST:PORT", help="The server under test.")
@click.option("--ca", type=_FILE, metavar="FILE", help="Who signed its certificate (PEM). [default: the system's CAs]")
@click.option("--insecure", is_flag=True, help="Take any certificate.")
@click.option("--strict", is_flag=True, help="Nothing more may be in what the server says: no new feature, no new "
              "payload.")  # fmt: skip
@_common
def client(cassette: Path, connect: str, ca: Path | None, insecure: bool, strict: bool,
           passwords: tuple[str, ...], password_file: Path | None,
           format_: Format, junit: Path | None, **options: Any) -> None:  # fmt: skip
    """Play the clients of a cassette: what the server says must be what was recorded.

    The server must know the accounts, with the passwords given here, and be as it was when the cassette was recorded:
    fresh, if it was fresh.
    """
    played = read_cassette(cassette)
    address = _address(connect, "--connect")
    known = collect_passwords(played, passwords, password_file, os.environ)
    acceptance = Acceptance(cassette) if options["accept"] else None
    play = partial(
        play_cassette,
        played,
        host=address.host,
        port=address.port,
        tls=_client_tls(ca, insecure),
        passwords=known,
        settings=_settings(options),
        contains=not strict,
        accept=_again(),
        on_played=_taker(acceptance),
    )
    click.get_current_context().exit(_run(play, format_, junit, acceptance))


def _run(play: Callable[[], Any], format_: Format, junit: Path | None, acceptance: Acceptance | None) -> int:
    started = datetime.now(UTC)
    report: Report = trio.run(play)
    code = emit(stamped(report, started, datetime.now(UTC)), format_, junit)
    if acceptance is not None:
        acceptance.write()
    return code


def _address(text: str, option: str) -> HostPort:
    try:
        return HostPort.from_text(text)
    except ValueError as error:
        raise UsageProblem(f"{option} {text!r}: {error}", "write HOST:PORT, as in 127.0.0.1:5222") from None


def _server_tls(cassette: Cassette, state: Path, cert: Path | None, key: Path | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if (cert is None) != (key is None):
        raise UsageProblem("--cert and --key go together", "give both, or neither for the local CA")
    if cert is not None and key is not None:
        ServerFiles.load(cert, key).load_into(context)
        return context
    authority = Authority.open_(state)
    authority.leaf(cassette.sessions[0].domain).load_into(context)
    click.echo(f"xproxy: clients must trust {authority.certificate_path}", err=True)
    return context


def _client_tls(ca: Path | None, insecure: bool) -> ssl.SSLContext:
    if insecure:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    if ca is None:
        return ssl.create_default_context()
    try:
        return trusting(ca)
    except (OSError, ssl.SSLError) as error:
        raise UsageProblem(f"--ca {ca}: {error.strerror or error}", "name a PEM file of certificates") from None


def _again() -> str:
    """Return the command that takes what came for what is right, without its passwords."""
    shown: list[str] = []
    skip = False
    for word in sys.argv[1:]:
        if skip or word.startswith("--password="):
            skip = False
            continue
        if word == "--password":
            skip = True
            continue
        shown.append(word)
    return shlex.join(["xproxy", *(word for word in shown if word != "--accept"), "--accept"])
