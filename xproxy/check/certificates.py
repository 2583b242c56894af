"""The certificate that clients see, the authority that signs it, and who may sign the server's."""

import itertools
import ssl
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509

from xproxy.check.finding import Finding, fine, from_error, problem, warning
from xproxy.config.check import Place
from xproxy.config.settings import Settings
from xproxy.errors import FileProblem
from xproxy.tls.authority import check_ca, read_ca_certificate
from xproxy.tls.credential import ServerFiles
from xproxy.tls.files import parse_certificates, parse_key, read_file
from xproxy.tls.names import CertificateNames
from xproxy.tls.verify import Authorities, judge_certificates

TOPIC: Final = "files"
DAYS_LEFT_WARN: Final = 14  # ACME clients renew 30 days ahead: at 14 something has been wrong for two weeks


def check_certificate(settings: Settings, place: Place, now: datetime) -> Iterator[Finding]:
    """Yield what is wrong, and what is right, with the certificate clients see: its files, or the authority's."""
    tls = settings.tls
    if tls.certificate_file is not None and tls.key_file is not None:
        yield from _check_pair(tls.certificate_file, tls.key_file, settings, place, now)
    elif tls.certificate_file is None and tls.key_file is None:
        yield from _check_ca(settings.state.directory, now)


def _check_pair(
    certificate_file: Path, key_file: Path, settings: Settings, place: Place, now: datetime
) -> Iterator[Finding]:
    where = place("tls", "certificate_file")
    try:
        ServerFiles.load(certificate_file, key_file, now=lambda: now)
        chain = parse_certificates(read_file(certificate_file, what="the file"), path=certificate_file, what="the file")
    except FileProblem as error:
        yield from_error(TOPIC, where, error)
        return
    leaf = chain[0]
    yield from _check_days(leaf, where, f"the certificate {certificate_file}", "renew it", now)
    yield from _check_chain(chain, where, certificate_file, now)
    names = CertificateNames.from_certificate(leaf)
    domain = settings.upstream.domain
    if domain is not None and not names.cover(domain):
        yield problem(
            TOPIC,
            where,
            f"the certificate {certificate_file} is not for {domain}, which --domain names: clients will refuse it",
            "name the certificate that the server itself uses, or correct the domain",
        )
    elif domain is not None:
        yield fine(TOPIC, where, f"the certificate {certificate_file} is for {domain} and belongs to its key")
    else:
        yield fine(TOPIC, where, f"the certificate {certificate_file} belongs to its key")


def _check_days(certificate: x509.Certificate, where: str, what: str, hint: str, now: datetime) -> Iterator[Finding]:
    left = certificate.not_valid_after_utc - now
    if timedelta(0) <= left < timedelta(days=DAYS_LEFT_WARN):
        yield warning(TOPIC, where, f"{what} expires in {left.days} days, {certificate.not_valid_after_utc:%Y-%m-%d}",
                      hint)  # fmt: skip


def _check_chain(chain: list[x509.Certificate], where: str, path: Path, now: datetime) -> Iterator[Finding]:
    """Clients get what is in the file: a missing intermediate is what most often makes them refuse."""
    for number, (certificate, issuer) in enumerate(itertools.pairwise(chain), 1):
        if certificate.issuer != issuer.subject:
            yield warning(
                TOPIC,
                where,
                f"certificate {number + 1} in {path} is not the issuer of certificate {number}",
                "put the server's certificate first and each issuer behind what it signed",
            )
            return
    verdict = judge_certificates(chain, None, Authorities.load(None), now)
    if verdict == "untrusted":
        yield warning(
            TOPIC,
            where,
            f"the chain in {path} leads to no authority that this system knows: clients need one of yours, or an "
            "intermediate certificate is missing",
            "append the intermediate certificates (fullchain.pem of ACME clients has them)",
        )
    elif verdict == "self-signed":
        yield warning(TOPIC, where, f"the certificate {path} is signed by itself: clients must be told to trust it")


def _check_ca(state: Path, now: datetime) -> Iterator[Finding]:
    certificate_path, key_path = state / "ca.pem", state / "ca.key"
    try:
        has_certificate, has_key = certificate_path.exists(), key_path.exists()
        if not has_certificate and not has_key:
            yield fine(TOPIC, str(certificate_path), "the local CA will be made at the first start")
            return
        if not has_key:
            yield problem(
                TOPIC,
                str(certificate_path),
                f"the CA certificate {certificate_path} has no key: {key_path} is missing",
                f"put the key back, or move {certificate_path} away to have a new CA made for clients to trust",
            )
            return
        key = parse_key(read_file(key_path, what="the CA key"), path=key_path, what="the CA key")
        if not has_certificate:
            yield fine(TOPIC, str(certificate_path), "the CA's certificate will be made from its key")
            return
        certificate = read_ca_certificate(state)
        check_ca(certificate, key, now, certificate_path, key_path)
    except FileProblem as error:
        yield from_error(TOPIC, str(error.path), error)
        return
    except OSError as error:
        yield problem(TOPIC, str(certificate_path), f"cannot look at the CA: {error.strerror or error}")
        return
    yield from _check_days(
        certificate, str(certificate_path), "the local CA",
        "move it away and run xproxy certs init for a new one, which clients must then trust", now,
    )  # fmt: skip
    yield fine(TOPIC, str(certificate_path), f"the local CA is valid until {certificate.not_valid_after_utc:%Y-%m-%d}")


def check_authorities(settings: Settings, place: Place) -> Iterator[Finding]:
    """Yield whether there is somebody who may sign the server's certificate."""
    upstream = settings.upstream
    where = place("upstream", "ca_file")
    if upstream.verify == "none":
        yield warning(
            TOPIC,
            place("upstream", "verify"),
            "any certificate of the server is taken: who sits between xproxy and it can read everything",
            'write verify = "full" in [upstream], with ca_file for an authority of your own',
        )
        return
    try:
        authorities = Authorities.load(upstream.ca_file)
        authorities.load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    except FileProblem as error:
        yield from_error(TOPIC, where, error)
        return
    count = len(authorities.certificates)
    source = str(upstream.ca_file) if upstream.ca_file is not None else "this system"
    if upstream.ca_file is None and not count:
        yield problem(
            TOPIC, where, "this system knows no authority that could sign the server's certificate",
            "install the package ca-certificates, or name a file with --upstream-ca",
        )  # fmt: skip
    else:
        noun = "authority" if count == 1 else "authorities"
        yield fine(TOPIC, where, f"{count} {noun} of {source} may sign the server's certificate")
