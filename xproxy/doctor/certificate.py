"""The server's certificate, judged as xproxy judges it, and the versions of TLS it speaks."""

from datetime import datetime
from typing import Final

from xproxy.doctor.findings import Finding, Fix, Severity, listed
from xproxy.doctor.look import Look
from xproxy.doctor.stop import Step
from xproxy.events.tls import CertificateFacts, TlsFailure

DAYS_WARN: Final = 14  # Let's Encrypt renews at 30: at 14 the renewal has failed for two weeks
VERSIONS: Final = {0x0301: "1.0", 0x0302: "1.1", 0x0303: "1.2", 0x0304: "1.3"}

_CHAIN_FIXES: Final = (
    Fix("xproxy", "--upstream-ca FILE: who signed it, or the certificate itself"),
    Fix("Prosody", 'ssl = { certificate = "<fullchain.pem>", key = "<privkey.pem>" }'),
    Fix("ejabberd", 'certfiles: ["<fullchain.pem>", "<privkey.pem>"]'),
)
_NAME_FIXES: Final = (
    Fix("xproxy", "--domain, if another domain was meant"),
    Fix("Prosody", 'VirtualHost "<domain>"  ssl = { certificate = "<a certificate for the domain>", key = "…" }'),
    Fix("ejabberd", 'certfiles: ["<a certificate for the domain, with its key>"]'),
)
_RENEW_FIXES: Final = (
    Fix("Prosody", "renew it, then: prosodyctl cert import <directory> && prosodyctl reload"),
    Fix("ejabberd", "renew it, then: ejabberdctl reload_config; or acme: {auto: true}"),
)


def check_certificate(verifying: Look, believing: Look, *, domain: str, now: datetime) -> list[Finding]:
    """Judge chain, name and time.

    ``verifying``: a look in which everything had to be right; ``believing``: one in which nothing had to.
    """
    if believing.tls is None or believing.identity is None:
        return []
    facts = believing.identity.certificate
    stop = verifying.stop
    found = []
    if verifying.tls is not None:
        found.append(
            Finding(
                check="certificate",
                severity=Severity.OK,
                finding=f"the certificate is valid for {domain}, and the chain leads to an authority that is trusted",
                seen=f"verified it at {verifying.way} as xproxy does (RFC 6120 section 13.7.2, RFC 9525)",
            )
        )
    elif stop is not None and stop.tls is not None:
        found.append(_refused(verifying, believing, facts, domain))
    elif stop is not None:
        found.append(
            Finding(
                check="certificate",
                severity=Severity.NOTE,
                finding=f"whether the certificate is valid for {domain} is not known: the server {stop.text}",
                seen=f"connected to {verifying.way} a second time to verify it",
                consequence="xproxy closes every session if it is not",
            )
        )
    if facts is not None:
        found += _days(facts, believing, now)
    return found


def _refused(verifying: Look, believing: Look, facts: CertificateFacts | None, domain: str) -> Finding:
    assert verifying.stop is not None
    assert believing.identity is not None
    names = listed(facts.alternative_names) if facts and facts.alternative_names else "no name"
    failure = verifying.stop.tls
    issuer = f", issued by {facts.issuer}" if facts and facts.issuer else ""
    finding = f"the certificate is refused: {verifying.stop.text}"
    fixes: tuple[Fix, ...] = _CHAIN_FIXES
    if failure is TlsFailure.CERTIFICATE_NAME_MISMATCH:
        finding, fixes = f"the certificate is for {names}, not for {domain}", _NAME_FIXES
    elif failure is TlsFailure.CERTIFICATE_EXPIRED:
        finding, fixes = (
            f"the certificate, or one of its chain, has expired ({facts.not_after if facts else '?'})",
            (_RENEW_FIXES),
        )
    elif failure is TlsFailure.CERTIFICATE_SELF_SIGNED:
        finding = f"the certificate is self-signed, for {names}"
    elif failure is TlsFailure.CERTIFICATE_UNTRUSTED:
        finding = f"who signed the certificate is not trusted, or its chain is incomplete{issuer}"
    if failure is not TlsFailure.CERTIFICATE_NAME_MISMATCH and not believing.identity.names.cover(domain):
        # Whoever mends the one alone meets the other next: it is the chain that is judged first.
        finding += f"; nor is it for {domain}" + (
            "" if failure is TlsFailure.CERTIFICATE_SELF_SIGNED else f" but {names}"
        )
        fixes = (*_NAME_FIXES, *(fix for fix in fixes if fix.where == "xproxy"))
    return Finding(
        check="certificate",
        severity=Severity.PROBLEM,
        finding=finding,
        seen=f"verified it at {believing.way} as xproxy does (RFC 6120 section 13.7.2, RFC 9525)",
        consequence="xproxy closes every session, and tls-failed says why; --upstream-verify none goes on unproven",
        fixes=fixes,
    )


def _days(facts: CertificateFacts, look: Look, now: datetime) -> list[Finding]:
    if facts.not_after is None:
        return []
    try:
        days = (datetime.fromisoformat(facts.not_after) - now).days
    except ValueError:  # a year before 1000: over, which is said where it was verified
        return []
    if days < 0:
        return []  # said where it was verified
    soon = days < DAYS_WARN
    return [
        Finding(
            check="certificate-days",
            severity=Severity.WARNING if soon else Severity.OK,
            finding=f"the certificate is valid until {facts.not_after}, for {days} day{'' if days == 1 else 's'}",
            seen=f"read from the certificate at {look.way}",
            consequence="from then on xproxy closes every session" if soon else "",
            fixes=_RENEW_FIXES if soon else (),
        )
    ]


def _is_refusal(look: Look) -> bool:
    """Whether it was the handshake that failed: everything before it is no answer to the question."""
    return look.stop is not None and look.stop.step is Step.TLS and look.stop.tls is not TlsFailure.TIMEOUT


def check_versions(looks: dict[int, Look]) -> list[Finding]:
    """Say which versions of TLS the server speaks; a look for each of them, made with that version alone."""
    unknown = [version for version, look in looks.items() if look.tls is None and not _is_refusal(look)]
    spoken = [version for version, look in looks.items() if look.tls is not None]
    if unknown:
        why = looks[unknown[0]].stop
        return [
            Finding(
                check="tls-versions",
                severity=Severity.NOTE,
                finding=f"whether the server speaks TLS {', '.join(VERSIONS[each] for each in unknown)} is not known: "
                f"it {why.text if why else 'made no TLS'}",
                seen="tried one handshake with each version alone",
                consequence="both sides of xproxy have one version, the one the server chooses, from 1.2 on",
            )
        ]
    if not spoken:
        return []
    names = ", ".join(VERSIONS[version] for version in spoken)
    seen = "made one handshake with each of TLS " + ", ".join(VERSIONS[version] for version in looks)
    found = []
    old = [version for version in spoken if version < 0x0303]
    if old:
        found.append(
            Finding(
                check="tls-old",
                severity=Severity.WARNING,
                finding=f"the server still speaks TLS {', '.join(VERSIONS[version] for version in old)}",
                seen=seen,
                consequence="clients that know nothing newer work directly, and not behind xproxy, which begins at 1.2",
                fixes=(
                    Fix("Prosody", 'ssl = { protocol = "tlsv1_2+" }'),
                    Fix("ejabberd", "c2s_protocol_options: [no_sslv3, no_tlsv1, no_tlsv1_1]"),
                ),
            )
        )
    if 0x0303 not in spoken:
        found.append(
            Finding(
                check="tls-versions",
                severity=Severity.WARNING,
                finding=f"the server speaks TLS {names} and not 1.2",
                seen=seen,
                consequence="both sides of xproxy have one version: apps that stop at 1.2, as many with XMPPFramework "
                "do, fail as they do without it",
                fixes=(
                    Fix("Prosody", 'ssl = { protocol = "tlsv1_2+" }'),
                    Fix("ejabberd", "c2s_protocol_options without no_tlsv1_2"),
                ),
            )
        )
    elif 0x0304 not in spoken:
        found.append(
            Finding(
                check="tls-versions",
                severity=Severity.NOTE,
                finding=f"the server speaks TLS {names} and not 1.3",
                seen=seen,
                consequence="both sides of xproxy have one version: clients that insist on 1.3 fail as without it",
                fixes=(
                    Fix("Prosody", 'ssl = { protocol = "tlsv1_2+" }'),
                    Fix("ejabberd", "c2s_protocol_options without no_tlsv1_3"),
                ),
            )
        )
    else:
        found.append(
            Finding(check="tls-versions", severity=Severity.OK, finding=f"the server speaks TLS {names}", seen=seen)
        )
    return found
