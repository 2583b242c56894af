"""``xproxy certs``: the local certificate authority, made, looked at and given away."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from xproxy.cli.output import is_terminal, print_json
from xproxy.config.state import default_state_directory
from xproxy.errors import UsageProblem
from xproxy.jid import JidError, domain_to_ascii
from xproxy.tls.authority import Authority, read_ca_certificate, stored_leaves
from xproxy.tls.facts import facts_of, spki_pin
from xproxy.tls.files import write_file
from xproxy.tls.names import CertificateNames

_DIRECTORY: Final = click.Path(path_type=Path, file_okay=False)

state_option = click.option(
    "--state",
    type=_DIRECTORY,
    default=default_state_directory,
    metavar="DIR",
    help="The state directory. Default: $STATE_DIRECTORY, else $XDG_STATE_HOME/xproxy, else ~/.local/state/xproxy.",
)


@click.group()
def certs() -> None:
    """The local certificate authority (CA).

    Without --cert and --key the proxy shows clients certificates that it makes itself, signed by a CA of its own that
    lies in the state directory. Clients must be told to trust that CA: give them the file ca.pem, never ca.key.
    """


@certs.command()
@state_option
@click.option("--domain", metavar="DOMAIN", help="Make the certificate for this XMPP domain too.")
def init(state: Path, domain: str | None) -> None:
    """Make the CA, unless it is there already, and say where it lies.

    Doing it twice changes nothing: the CA and what clients trust stay as they are.
    """
    name = _domain_name(domain)
    existed = (state / "ca.pem").exists()
    authority = Authority.open_(state)
    click.echo(f"{'The CA was there already' if existed else 'Made a CA'}: {authority.certificate_path}")
    click.echo(f"SHA-256 fingerprint: {_colons(authority.facts.sha256)}")
    if name is not None:
        leaf = authority.leaf(name)
        click.echo(f"Certificate for {name}: {leaf.cert_path}")
        click.echo(f"SHA-256 fingerprint: {_colons(leaf.facts.sha256)}")
    if not existed:
        click.echo("Make clients trust the CA certificate (xproxy certs export); keep ca.key to yourself.")


@certs.command()
@state_option
@click.option("--domain", metavar="DOMAIN", help="Show the certificate for this XMPP domain only.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show(state: Path, domain: str | None, as_json: bool) -> None:
    """Show the CA and the certificates made so far: names, validity, fingerprints, pins.

    "Public key" is SHA-256 of the SubjectPublicKeyInfo, what apps pin; "end point" is the tls-server-end-point channel
    binding (RFC 5929), what Prosody calls tls_server_end_point_hash.
    """
    now = datetime.now(UTC)
    authority = _describe(state / "ca.pem", read_ca_certificate(state), now)
    name = _domain_name(domain)
    leaves = [
        _describe(path, certificate, now)
        for path, certificate in stored_leaves(state)
        if name is None or name in CertificateNames.from_certificate(certificate).dns
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


@certs.command()
@state_option
@click.option("--out", default="-", metavar="FILE|-", show_default=True, help="Where to write; - is standard output.")
@click.option("--der", is_flag=True, help="DER instead of PEM, as Windows and Android like it (.cer, .crt).")
def export(state: Path, out: str, der: bool) -> None:
    """Write the CA certificate (never its key), to be trusted by clients."""
    certificate = read_ca_certificate(state)
    data = certificate.public_bytes(Encoding.DER if der else Encoding.PEM)
    if out == "-":
        if der and is_terminal(sys.stdout):
            raise UsageProblem("DER is not for a terminal", "add --out FILE")
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
        return
    path = Path(out)
    write_file(path, data, mode=0o644)
    click.echo(f"Wrote {path}, SHA-256 fingerprint {_colons(facts_of(certificate).sha256)}", err=True)


def _domain_name(domain: str | None) -> str | None:
    if domain is None:
        return None
    try:
        return domain_to_ascii(domain)
    except JidError as error:
        hint = "give the part behind the @ of its addresses; an IP address gets no certificate"
        raise UsageProblem(f"--domain {domain!r} is no XMPP domain ({error.reason})", hint) from error


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
        "public_key_sha256": spki_pin(certificate),
        "end_point_sha256": facts.end_point_hash,
    }


def _print(described: dict[str, Any]) -> None:
    days = described["days_left"]
    left = f"{days} days left" if days >= 0 else "EXPIRED"
    rows = [
        ("File", described["file"]),
        ("Subject", described["subject"] or "(none)"),
        *([("Names", ", ".join(described["names"]))] if described["names"] else []),
        ("Valid", f"{described['not_before']} to {described['not_after']} ({left})"),
        ("SHA-256", _colons(described["sha256"])),
        ("Public key", described["public_key_sha256"]),
        ("End point", described["end_point_sha256"]),
    ]
    for label, value in rows:
        click.echo(f"  {label + ':':<12} {value}")


def _colons(fingerprint: str) -> str:
    """Return ``fingerprint`` as openssl x509 -fingerprint prints it."""
    upper = fingerprint.upper()
    return ":".join(upper[index : index + 2] for index in range(0, len(upper), 2))
