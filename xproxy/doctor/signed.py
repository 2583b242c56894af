"""What the server signs of its own offer, and what it does to who might have bound: asked with a name alone."""

from typing import Final

from xproxy.doctor.certificate import VERSIONS
from xproxy.doctor.findings import Finding, Fix, Severity, listed, quoted
from xproxy.doctor.look import Offered
from xproxy.doctor.scram import ServerFirst
from xproxy.xmpp.sasl.downgrade import TLS_VERSIONS, is_offer_genuine

ITERATIONS_MIN: Final = 4_096
"""RFC 5802 section 5.1; XMPPFramework answers a challenge with fewer by silence."""

_NOTE: Final = "began SCRAM as --jid and broke it off before any proof; the server may count it as a failed login"


def not_asked(why: str) -> Finding:
    """Say that nothing is known about what is signed."""
    return Finding(
        check="signed-offer",
        severity=Severity.NOTE,
        finding=f"whether the server signs its offer and its TLS version is not known: {why}",
        seen="not asked",
        consequence="xproxy changes neither, so logins work either way",
        fixes=(Fix("xproxy", "xproxy doctor --jid USER@DOMAIN asks; it needs no password"),),
    )


def check_server_first(first: ServerFirst, offer: Offered, tls_version: str) -> list[Finding]:
    """Judge server-first. ``tls_version``: of the connection it came over, "1.3"."""
    challenge = first.challenge
    if challenge is None:
        return [
            Finding(
                check="signed-offer",
                severity=Severity.NOTE,
                finding=f"{first.mechanism} was refused at its first message: {first.refusal}",
                seen=_NOTE,
                consequence="whether the server signs its offer is not known",
                fixes=(Fix("xproxy", "--jid with an account that exists"),),
            )
        ]
    found = [_signed_offer(first, offer), _signed_version(first, tls_version)]
    if challenge.problem is not None:
        found.append(
            Finding(
                check="scram-challenge",
                severity=Severity.PROBLEM,
                finding=f"the first message of {first.mechanism} is malformed: {challenge.problem}",
                seen=_NOTE,
                consequence="no client can log in with it, through xproxy or without it",
            )
        )
    elif challenge.iterations is not None and challenge.iterations < ITERATIONS_MIN:
        found.append(
            Finding(
                check="scram-iterations",
                severity=Severity.WARNING,
                finding=f"{first.mechanism} asks for {challenge.iterations} iterations; {ITERATIONS_MIN} are the least",
                seen=_NOTE,
                consequence="XMPPFramework does not answer and the login hangs, through xproxy as without it",
                fixes=(Fix("Prosody", "default_iteration_count = 10000, then set the passwords anew"),),
            )
        )
    return found


def _signed_offer(first: ServerFirst, offer: Offered) -> Finding:
    """XEP-0474."""
    challenge = first.challenge
    assert challenge is not None
    if not challenge.has_h:
        return Finding(
            check="signed-offer",
            severity=Severity.OK,
            finding="the server does not sign its offer (no h=, XEP-0474)",
            seen=_NOTE,
        )
    genuine = None
    if challenge.h is not None:
        genuine = is_offer_genuine(challenge.h, offer.mechanisms, offer.bindings or None, first.mechanism)
    if genuine:
        return Finding(
            check="signed-offer",
            severity=Severity.OK,
            finding="the server signs its offer (h=, XEP-0474), and it arrived as it was signed",
            seen=f"{_NOTE}; hashed what was offered",
            consequence="nobody may edit the mechanisms on the way; xproxy never does",
        )
    return Finding(
        check="signed-offer",
        severity=Severity.PROBLEM,
        finding="the server signs its offer (h=, XEP-0474), and it arrived changed"
        if genuine is False
        else "the server sends an h= (XEP-0474) that is no hash",
        seen=f"{_NOTE}; hashed what was offered: {listed(offer.mechanisms)}",
        consequence="somebody between here and the server edits it, or the server signs another list than it sends: "
        "clients that check it refuse to log in, and xproxy records upstream-tampering",
        fixes=(Fix("ejabberd", "disable_sasl_scram_downgrade_protection: true, if the server is to blame"),),
    )


def _signed_version(first: ServerFirst, tls_version: str) -> Finding:
    """XEP-0515."""
    challenge = first.challenge
    assert challenge is not None
    if not challenge.has_t:
        return Finding(
            check="signed-tls-version",
            severity=Severity.OK,
            finding="the server does not sign its TLS version (no t=, XEP-0515)",
            seen=_NOTE,
        )
    said = TLS_VERSIONS.get(challenge.t or "")
    if said == tls_version:
        return Finding(
            check="signed-tls-version",
            severity=Severity.OK,
            finding=f"the server signs its TLS version (t=, XEP-0515), {said}, which is the one seen here",
            seen=_NOTE,
            consequence="xproxy has the same version on both sides, so the check holds behind it",
        )
    return Finding(
        check="signed-tls-version",
        severity=Severity.PROBLEM,
        finding=f"the server signs TLS version {said or quoted(challenge.t or '?')} (t=, XEP-0515), here it is "
        f"{tls_version}",
        seen=_NOTE,
        consequence="TLS ends somewhere between here and the server: clients that check it refuse to log in, and "
        "xproxy records upstream-tampering",
    )


def check_gs2_y(answers: dict[int, ServerFirst]) -> Finding:
    """Judge the answers to "I could bind, and you offer nothing to bind with"; one a version of TLS without -PLUS."""
    refused = [version for version, first in answers.items() if first.challenge is None]
    seen = "began SCRAM with the gs2 flag y over TLS " + ", ".join(VERSIONS[version] for version in sorted(answers))
    if not refused:
        return Finding(
            check="gs2-y",
            severity=Severity.OK,
            finding="clients that could bind and are offered no -PLUS may log in",
            seen=seen,
        )
    versions = " and ".join(VERSIONS[version] for version in sorted(refused))
    return Finding(
        check="gs2-y",
        severity=Severity.WARNING,
        finding=f"over TLS {versions} no -PLUS is offered, and clients that could bind are refused for its lack "
        f"({answers[refused[0]].refusal})",
        seen=seen,
        consequence="such clients cannot log in with SCRAM, through xproxy or without it: hiding -PLUS is no mending",
        fixes=(
            Fix("Prosody", 'take the -PLUS names out of disable_sasl_mechanisms, or ssl = { protocol = "tlsv1_3" }'),
            Fix("ejabberd", "disable_sasl_mechanisms: [SCRAM-SHA-1-PLUS, SCRAM-SHA-256-PLUS, SCRAM-SHA-512-PLUS]"),
        ),
    )
