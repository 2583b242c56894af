"""``xproxy certs``: the local certificate authority, made, looked at and given away."""

import sys
from base64 import b64encode
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from xproxy.cli.output import is_terminal, print_json
from xproxy.cli.state import state_option
from xproxy.errors import FileProblem, UsageProblem
from xproxy.jid import JidError, domain_to_ascii
from xproxy.tls.authority import Authority, permitted_domains, read_ca_certificate, stored_leaves
from xproxy.tls.facts import facts_of, spki_pin
from xproxy.tls.files import write_file
from xproxy.tls.names import CertificateNames
from xproxy.tls.trust import SYSTEMS, HowTo, Step, how_to


@click.group()
def certs() -> None:
    """The local certificate authority (CA).

    Without --cert and --key the proxy shows clients certificates that it makes itself, signed by a CA of its own that
    lies in the state directory. Clients must be told to trust that CA: give them the file ca.pem, never ca.key.
    """


@certs.command(short_help="Make the CA, unless it is there.")
@state_option(None)
@click.option(
    "--domain",
    "domains",
    metavar="DOMAIN",
    multiple=True,
    help="An XMPP domain; once for each. A CA that is made now may sign for these and those below them alone.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, as show does.")
def init(state: Path, domains: tuple[str, ...], as_json: bool) -> None:
    """Make the CA, unless it is there already, and say where it lies; for each domain its certificate too.

    Name the domains when the CA is made: its certificate then says that it may sign for these and those below them
    alone (name constraints), so that a stolen ca.key is no danger to clients' other connections. That cannot be added
    to a CA that clients trust already.

    Doing it twice changes nothing: the CA and what clients trust stay as they are.
    """
    names = tuple(dict.fromkeys(_domain_name(domain) for domain in domains))
    existed = (state / "ca.pem").exists()
    authority = Authority.open_(state, domains=names)
    for name in names:
        if not authority.permits(name):
            path = authority.certificate_path
            raise FileProblem(
                f"the CA {path} may sign for {', '.join(authority.permitted)} only, not for {name}",
                f"move {path} and {path.with_suffix('.key')} away and run this again with all domains for a new CA, "
                "which clients must then trust",
                path=path,
            )
    leaves = [authority.leaf(name) for name in names]
    if names and not authority.permitted:
        click.echo(
            "xproxy: the CA was made without domains, so its key can sign for any: to confine it to "
            f"{', '.join(names)}, move ca.pem and ca.key away and run this again; clients must then trust the new CA",
            err=True,
        )
    if as_json:
        now = datetime.now(UTC)
        described = [_describe_leaf(path, certificate, now) for path, certificate in _leaves_of(state, names)]
        ca = _describe_ca(authority.certificate_path, authority.certificate, now)
        print_json({"made": not existed, "ca": ca, "leaves": described})
        return
    click.echo(f"{'The CA was there already' if existed else 'Made a CA'}: {authority.certificate_path}")
    click.echo(f"SHA-256 fingerprint: {_colons(authority.facts.sha256)}")
    click.echo(f"It may sign for: {_permitted(authority.permitted)}")
    for name, leaf in zip(names, leaves, strict=True):
        click.echo(f"Certificate for {name}: {leaf.cert_path}")
        click.echo(f"SHA-256 fingerprint: {_colons(leaf.facts.sha256)}")
    if not existed:
        click.echo("Make clients trust the CA certificate (xproxy certs export); keep ca.key to yourself.")


@certs.command(short_help="The CA and its certificates: names, validity, fingerprints.")
@state_option("ca.pem")
@click.option("--domain", metavar="DOMAIN", help="Show the certificate for this XMPP domain only.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show(state: Path, domain: str | None, as_json: bool) -> None:
    """Show the CA and the certificates made so far: names, validity, fingerprints, pins.

    "Public key" is SHA-256 of the SubjectPublicKeyInfo, what apps pin, in hex and in Base64; it outlives renewal. "End
    point" is the tls-server-end-point channel binding (RFC 5929 section 4). The line below it, in Prosody's
    configuration (13.0 or later), has logins bound to that certificate succeed through the proxy; it changes with
    every renewal.
    """
    now = datetime.now(UTC)
    authority = _describe_ca(state / "ca.pem", read_ca_certificate(state), now)
    name = None if domain is None else _domain_name(domain)
    leaves = [
        _describe_leaf(path, certificate, now)
        for path, certificate in _leaves_of(state, None if name is None else (name,))
    ]
    if as_json:
        print_json({"ca": authority, "leaves": leaves})
        return
    click.echo("Certificate authority")
    _print(authority)
    for leaf in leaves:
        click.echo(f"\n{leaf['names'][0] if leaf['names'] else 'Certificate'}")
        _print(leaf)
    if not leaves:
        click.echo(f"\nNo certificate was made for {name} yet." if name else "\nNo certificate was made yet.")


@certs.command(short_help="Write the CA certificate, and say how it comes to be trusted.")
@state_option("ca.pem")
@click.option("--for", "system", type=click.Choice(SYSTEMS), help="Write what this kind of system wants, and say how.")
@click.option("--out", metavar="FILE|DIR|-", help="Where to write; default -, standard output; with --for a directory.")
@click.option("--der", is_flag=True, help="DER instead of PEM, as Windows likes it (.cer, .crt).")
@click.option("--json", "as_json", is_flag=True, help="With --for: print one JSON object.")
def export(state: Path, system: str | None, out: str | None, der: bool, as_json: bool) -> None:
    """Write the CA certificate (never its key), to be trusted by clients.

    With --for the files go into a directory (the current one by default), and the commands that make such a client
    trust them are printed, with those that undo it.
    """
    certificate = read_ca_certificate(state)
    if system is not None:
        if der or out == "-":
            raise UsageProblem("--for writes files of its own form into a directory", "leave out --der and --out -")
        _export_for(system, certificate, Path(out or "."), as_json=as_json)
        return
    if as_json:
        raise UsageProblem("--json needs --for", f"add --for {SYSTEMS[0]}, or another of {', '.join(SYSTEMS[1:])}")
    data = certificate.public_bytes(Encoding.DER if der else Encoding.PEM)
    if out is None or out == "-":
        if der and is_terminal(sys.stdout):
            raise UsageProblem("DER is not for a terminal", "add --out FILE")
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
        return
    path = Path(out)
    write_file(path, data, mode=0o644)
    click.echo(f"Wrote {path}, SHA-256 fingerprint {_colons(facts_of(certificate).sha256)}", err=True)


def _export_for(system: str, certificate: x509.Certificate, directory: Path, *, as_json: bool) -> None:
    guide = how_to(system, certificate, directory.absolute())
    for path, data in guide.files:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileProblem.from_os_error(error, doing="make the directory", path=path.parent) from error
        write_file(path, data, mode=0o644)
    fingerprint = facts_of(certificate).sha256
    if as_json:
        steps, undo = ([{"text": step.text, "command": step.command} for step in part] for part in _parts(guide))
        files = [str(path) for path, _ in guide.files]
        print_json({"system": guide.system, "files": files, "sha256": fingerprint, "steps": steps, "undo": undo})
        return
    click.echo(guide.title)
    for path, _ in guide.files:
        click.echo(f"Wrote {path}")
    click.echo(f"SHA-256 fingerprint {_colons(fingerprint)}")
    for heading, steps_of in zip(("To trust it", "To undo it"), _parts(guide), strict=True):
        click.echo(f"\n{heading}")
        for step in steps_of:
            click.echo(f"  {step.text}{':' if step.command else '.'}")
            if step.command:
                click.echo(f"    {step.command}")


def _parts(guide: HowTo) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
    return guide.steps, guide.undo


def _domain_name(domain: str) -> str:
    try:
        return domain_to_ascii(domain)
    except JidError as error:
        hint = "give the part behind the @ of its addresses; an IP address gets no certificate"
        raise UsageProblem(f"--domain {domain!r} is no XMPP domain ({error.reason})", hint) from error


def _leaves_of(state: Path, names: tuple[str, ...] | None) -> list[tuple[Path, x509.Certificate]]:
    """Return the leaves for ``names``; None: all."""
    return [
        (path, certificate)
        for path, certificate in stored_leaves(state)
        if names is None or not set(CertificateNames.from_certificate(certificate).dns).isdisjoint(names)
    ]


def _describe_ca(path: Path, certificate: x509.Certificate, now: datetime) -> dict[str, Any]:
    return {**_describe(path, certificate, now), "permitted_domains": list(permitted_domains(certificate))}


def _describe_leaf(path: Path, certificate: x509.Certificate, now: datetime) -> dict[str, Any]:
    described = _describe(path, certificate, now)
    return {**described, "prosody": f'tls_server_end_point_hash = "{described["end_point_sha256"]}"'}


def _describe(path: Path, certificate: x509.Certificate, now: datetime) -> dict[str, Any]:
    facts = facts_of(certificate)
    return {
        "file": str(path),
        "subject": certificate.subject.rfc4514_string(),
        "issuer": facts.issuer,
        "names": list(facts.alternative_names),
        "serial_number": facts.serial_number,
        "not_before": facts.not_before,
        "not_after": facts.not_after,
        "days_left": (certificate.not_valid_after_utc - now).days,
        "sha256": facts.sha256,
        "sha1": certificate.fingerprint(hashes.SHA1()).hex(),
        "public_key_sha256": spki_pin(certificate),
        "public_key_sha256_base64": b64encode(bytes.fromhex(spki_pin(certificate))).decode(),
        "end_point_sha256": facts.end_point_hash,
    }


def _print(described: dict[str, Any]) -> None:
    days = described["days_left"]
    left = f"{days} days left" if days >= 0 else "EXPIRED"
    rows = [
        ("File", described["file"]),
        ("Subject", described["subject"] or "(none)"),
        *([("Names", ", ".join(described["names"]))] if described["names"] else []),
        *([("Signs for", _permitted(described["permitted_domains"]))] if "permitted_domains" in described else []),
        ("Valid", f"{described['not_before']} to {described['not_after']} ({left})"),
        ("SHA-256", _colons(described["sha256"])),
        ("SHA-1", _colons(described["sha1"])),
        ("Public key", described["public_key_sha256"]),
        ("", f"sha256/{described['public_key_sha256_base64']}"),
        *([("End point", described["end_point_sha256"])] if "prosody" in described else []),
        *([("Prosody", described["prosody"])] if "prosody" in described else []),
    ]
    for label, value in rows:
        click.echo(f"  {label + ':' if label else '':<12} {value}")


def _permitted(domains: Sequence[str]) -> str:
    return f"{', '.join(domains)}, and what is below" if domains else "any domain"


def _colons(fingerprint: str) -> str:
    """Return ``fingerprint`` as openssl x509 -fingerprint prints it."""
    upper = fingerprint.upper()
    return ":".join(upper[index : index + 2] for index in range(0, len(upper), 2))
