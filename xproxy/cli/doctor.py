"""``xproxy doctor``: look at a server and say what will break behind xproxy, and which setting mends it."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import attrs
import click
import trio
from rich.console import Console
from rich.text import Text

from xproxy.cli.output import is_terminal, make_console, print_json
from xproxy.config.address import HostPort
from xproxy.config.upstream import parse_nameserver
from xproxy.doctor.bans import TRIES_MAX
from xproxy.doctor.examine import SECONDS_MAX, Diagnosis, Patient, examine
from xproxy.doctor.findings import Finding, Severity
from xproxy.errors import EXIT_ENVIRONMENT, EXIT_NO, EXIT_OK, UsageProblem
from xproxy.jid import Jid, JidError, domain_to_ascii, enforce_domainpart, is_ip_address
from xproxy.tls.verify import Authorities

PASSWORD_VARIABLE: Final = "XPROXY_DOCTOR_PASSWORD"
_STYLES: Final = {
    Severity.OK: "green",
    Severity.NOTE: "cyan",
    Severity.WARNING: "bold yellow",
    Severity.PROBLEM: "bold red",
}
_CHECK_COLUMNS: Final = 20  # the longest name of a check and two blanks
_SEVERITY_COLUMNS: Final = 9

_EPILOG = """\b
Examples:
  xproxy doctor example.org
      the server DNS names for example.org, else its port 5222 (STARTTLS) and 5223 (direct TLS)
  xproxy doctor 127.0.0.1:15222 --domain example.org --upstream-ca ca.pem
      what `xproxy run --upstream 127.0.0.1:15222` would meet
  xproxy doctor xmpp.example.org --domain example.org --jid romeo@example.org --login
      also what shows only above a login; the password is asked for, or is in $XPROXY_DOCTOR_PASSWORD

Exit codes: 0 nothing worse than a warning, 1 a problem, 2 usage, 3 the server cannot be reached.
"""


@click.command(epilog=_EPILOG)
@click.argument("server", metavar="HOST[:PORT]")
@click.option(
    "--domain", metavar="D", help="The XMPP domain, the part behind the @. Default: that of --jid, else HOST."
)
@click.option("--jid", metavar="J", help="An account: SCRAM is begun in its name and broken off, which takes no "
              "password, shows what the server signs, and may count as a failed login.")  # fmt: skip
@click.option("--login", is_flag=True, help="Log in as --jid too. The password is asked for, or taken from "
              f"${PASSWORD_VARIABLE}.")  # fmt: skip
@click.option("--upstream-ca", type=click.Path(path_type=Path), metavar="FILE", help="Who may sign the server's "
              "certificate, PEM. Default: the system's authorities.")  # fmt: skip
@click.option("--nameserver", metavar="ADDRESS[:PORT]", help="Ask this name server. Default: the system's.")
@click.option("--try-bans", type=click.IntRange(1, TRIES_MAX), metavar="N", help="Fail N logins of a user that does "
              "not exist, to see whether that bans this address. It may, for an hour, all behind it.")  # fmt: skip
@click.option("--timeout", type=click.FloatRange(1, 3_600), default=SECONDS_MAX, show_default=True, metavar="SECONDS",
              help="For all of it.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="One JSON object also on a terminal; piped it is JSON anyway.")
def doctor(
    server: str,
    domain: str | None,
    jid: str | None,
    login: bool,
    upstream_ca: Path | None,
    nameserver: str | None,
    try_bans: int | None,
    timeout: float,
    as_json: bool,
) -> int:
    """Look at a server: what will break behind xproxy, and the setting that mends it.

    A dozen connections are made, one after the other. Nothing is changed on the server, no password is tried unless
    --login or --try-bans asks for it, and nothing is guessed: each finding says how it was seen.
    """
    host, port = _parse_server(server)
    account = None if jid is None else _parse_jid(jid)
    patient = Patient(
        host=host,
        port=port,
        domain=_domain(domain, account, host),
        jid=account,
        password=_password(account) if login else None,
        ban_tries=try_bans or 0,
        nameserver=None if nameserver is None else _parse_nameserver(nameserver),
    )
    authorities = Authorities.load(upstream_ca)
    human = is_terminal(sys.stdout) and not as_json
    console = make_console()
    with _progress(console if human else make_console(stderr=True)) as say:
        tell = partial(_print, console) if human else _ignore
        diagnosis = trio.run(partial(examine, patient, authorities, tell=tell, say=say, seconds_max=timeout))
    if human:
        _summarise(console, diagnosis)
    else:
        print_json(_document(patient, diagnosis))
    if not diagnosis.is_reached:
        return EXIT_ENVIRONMENT
    return EXIT_NO if diagnosis.worst is Severity.PROBLEM else EXIT_OK


# What was asked for.


def _parse_server(text: str) -> tuple[str, int | None]:
    """Return host and port; the port may be left out."""
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if is_ip_address(bare) or (":" not in text and text):
        host: str = bare
        port = None
    else:
        try:
            address = HostPort.from_text(text)
        except ValueError as error:
            raise UsageProblem(f"the server to look at: {error}") from error
        host, port = address.host, address.port
    if not is_ip_address(host):
        try:
            domain_to_ascii(host)
        except JidError as error:
            raise UsageProblem(f"{host!r} is no host name ({error.reason})", "write xmpp.example.org:5222") from error
    if port == 0:
        raise UsageProblem("port 0 is no server's port", "write 5222, or leave it out")
    return host, port


def _parse_jid(text: str) -> Jid:
    try:
        jid = Jid.from_text(text)
    except JidError as error:
        raise UsageProblem(f"--jid {text!r} is no address ({error})", "write romeo@example.org") from error
    if jid.local is None:
        raise UsageProblem(f"--jid {text!r} names no user", "write romeo@example.org")
    return jid


def _domain(given: str | None, jid: Jid | None, host: str) -> str:
    if given is None:
        if jid is None and is_ip_address(host):
            hint = "add --domain: what stands behind the @ of its addresses"
            raise UsageProblem(f"{host} is an address, and its XMPP domain is not known", hint)
        return host if jid is None else jid.domain
    try:
        domain = enforce_domainpart(given)
    except JidError as error:
        raise UsageProblem(f"--domain {given!r} is no XMPP domain ({error.reason})", "write example.org") from error
    if jid is not None and jid.domain != domain:
        raise UsageProblem(f"--jid is of {jid.domain}, and --domain says {domain}", "leave one of them out")
    return domain


def _parse_nameserver(text: str) -> HostPort:
    try:
        return parse_nameserver(text)
    except ValueError as error:
        raise UsageProblem(f"--nameserver: {error}") from error


def _password(jid: Jid | None) -> str:
    """Return the password: never an argument, which every user of the machine may read."""
    if jid is None:
        raise UsageProblem("--login needs an account", "add --jid USER@DOMAIN")
    if (known := os.environ.get(PASSWORD_VARIABLE)) is not None:
        return known
    if not is_terminal(sys.stdin):
        raise UsageProblem("--login needs a password and there is no terminal to ask at", f"set ${PASSWORD_VARIABLE}")
    return str(click.prompt(f"Password of {jid.bare}", hide_input=True, err=True))


# What is printed.


@contextmanager
def _progress(console: Console) -> Iterator[Callable[[str], None]]:
    """Say on a terminal what is looked at, below what was found."""
    if not console.is_terminal:
        yield _ignore
        return
    with console.status("looking …") as status:
        yield lambda stage: status.update(f"looking at {stage} …")


def _ignore(something: object) -> None:
    """Nobody watches."""


def _print(console: Console, finding: Finding) -> None:
    indent = " " * (_SEVERITY_COLUMNS + _CHECK_COLUMNS)
    console.print(
        Text.assemble(
            (f"{finding.severity.word:<{_SEVERITY_COLUMNS}}", _STYLES[finding.severity]),
            (f"{finding.check:<{_CHECK_COLUMNS}}", "bold"),
            finding.finding,
        ),
        soft_wrap=True,
    )
    lines = [("behind xproxy: ", finding.consequence)] if finding.consequence else []
    if finding.severity is not Severity.OK:
        lines += [(f"{fix.where}: ", fix.setting) for fix in finding.fixes]
    for label, text in lines:
        console.print(Text.assemble(indent, (label, "bold"), text), soft_wrap=True)
    console.print(Text(f"{indent}{finding.seen}", style="dim"), soft_wrap=True)


def _summarise(console: Console, diagnosis: Diagnosis) -> None:
    counts = {
        severity: sum(finding.severity is severity for finding in diagnosis.findings) for severity in reversed(Severity)
    }
    words = [
        f"{count} {severity.word}{'' if count == 1 or severity is Severity.OK else 's'}"
        for severity, count in counts.items()
        if count
    ]
    number = diagnosis.connections
    text = f"{', '.join(words) or 'nothing'}; {number} connection{'' if number == 1 else 's'}"
    console.print(Text(text, style=_STYLES[diagnosis.worst]))


def _document(patient: Patient, diagnosis: Diagnosis) -> dict[str, object]:
    return {
        "host": patient.host,
        "port": patient.port,
        "domain": patient.domain,
        "reached": diagnosis.is_reached,
        "worst": diagnosis.worst.word,
        "connections": diagnosis.connections,
        "findings": [
            {
                "check": finding.check,
                "severity": finding.severity.word,
                "finding": finding.finding,
                "seen": finding.seen,
                "consequence": finding.consequence,
                "fixes": [attrs.asdict(fix) for fix in finding.fixes],
            }
            for finding in diagnosis.findings
        ],
    }
