"""What the server offers, before TLS and above it: the way into TLS, mechanisms, bindings, limits."""

from typing import Final

import attrs

from xproxy.config.stream import StreamLimits
from xproxy.doctor.certificate import VERSIONS
from xproxy.doctor.findings import Finding, Fix, Severity, listed
from xproxy.doctor.look import Look, Offered
from xproxy.xmpp import ns
from xproxy.xmpp.sasl.downgrade import hash_name_of

_REQUIRE: Final = (
    Fix("Prosody", "c2s_require_encryption = true"),
    Fix("ejabberd", "starttls_required: true"),
)
_COMPRESSION: Final = frozenset({f"{{{ns.COMPRESS}}}compression", "{http://jabber.org/features/compress}compression"})


def check_starttls(look: Look) -> list[Finding]:
    """Judge the features in clear."""
    if look.clear is None:
        return []
    seen = f"read the features in clear at {look.way}"
    match look.clear.features.seen.starttls:
        case "required":
            found = [Finding(check="starttls", severity=Severity.OK, finding="STARTTLS is required", seen=seen)]
        case "offered":
            found = [
                Finding(
                    check="starttls",
                    severity=Severity.WARNING,
                    finding="STARTTLS is offered and not required",
                    seen=seen,
                    consequence="XMPPFramework by default stays in clear then, through xproxy as without it",
                    fixes=_REQUIRE,
                )
            ]
        case _:
            found = [
                Finding(
                    check="starttls",
                    severity=Severity.PROBLEM,
                    finding="STARTTLS is not offered",
                    seen=seen,
                    consequence="everything stays in clear, passwords too: xproxy encrypts nothing the server does not",
                    fixes=(
                        Fix("Prosody", 'modules_enabled = { "tls" }  ssl = { certificate = "…", key = "…" }'),
                        Fix("ejabberd", 'starttls: true  certfiles: ["<fullchain.pem>", "<privkey.pem>"]'),
                    ),
                )
            ]
    if mechanisms := look.clear.mechanisms:
        plain = "PLAIN" in mechanisms
        found.append(
            Finding(
                check="mechanisms-in-clear",
                severity=Severity.PROBLEM if plain else Severity.WARNING,
                finding=f"logins without TLS are offered: {listed(mechanisms)}",
                seen=seen,
                consequence="a client that uses them shows "
                + ("its password" if plain else "its login")
                + " to everybody on the way; xproxy records plaintext-authentication",
                fixes=(
                    Fix("Prosody", "c2s_require_encryption = true  allow_unencrypted_plain_auth = false"),
                    Fix("ejabberd", "starttls_required: true"),
                ),
            )
        )
    return found


def check_mechanisms(offers: dict[int, Offered]) -> list[Finding]:
    """Judge the mechanisms above TLS; one offer a version of TLS, since Prosody's differ."""
    if not offers:
        return []
    best = offers[max(offers)]
    seen = _seen(offers)
    if not best.mechanisms and best.sasl2 is None:
        return [
            Finding(
                check="mechanisms",
                severity=Severity.PROBLEM,
                finding="no way to log in is offered above TLS",
                seen=seen,
                consequence="nobody can log in, through xproxy or without it",
                fixes=(
                    Fix("Prosody", 'modules_enabled = { "saslauth" }  authentication = "internal_hashed"'),
                    Fix("ejabberd", "auth_method: [mnesia]"),
                ),
            )
        ]
    found = [
        Finding(
            check="mechanisms",
            severity=Severity.OK,
            finding=f"above TLS are offered: {listed(best.mechanisms)}",
            seen=seen,
        )
    ]
    if best.mechanisms and not any(hash_name_of(name) for name in best.mechanisms):
        found.append(
            Finding(
                check="scram",
                severity=Severity.NOTE,
                finding="no SCRAM mechanism is offered",
                seen=seen,
                consequence="passwords cross xproxy as they are; they are in no record, but in its memory for a moment",
                fixes=(
                    Fix("Prosody", 'authentication = "internal_hashed"'),
                    Fix("ejabberd", "auth_method: [mnesia]  (ldap, pam, external have the password checked in clear)"),
                ),
            )
        )
    if any("EXTERNAL" in offer.mechanisms for offer in offers.values()):
        found.append(
            Finding(
                check="external",
                severity=Severity.WARNING,
                finding="EXTERNAL is offered: logins by the client's certificate",
                seen=seen,
                consequence="the client's certificate ends at xproxy, so such a login fails behind it",
                fixes=(
                    Fix("Prosody", 'disable_sasl_mechanisms = { "EXTERNAL" }'),
                    Fix("ejabberd", "disable_sasl_mechanisms: [EXTERNAL]"),
                ),
            )
        )
    found += _bindings(offers, seen)
    found += _sasl2(best, seen)
    return found


def _seen(offers: dict[int, Offered]) -> str:
    versions = ", ".join(VERSIONS[version] for version in sorted(offers))
    return f"read the features above TLS {versions}"


@attrs.frozen(kw_only=True)
class _Bound:
    """What of an offer is bound to the TLS session."""

    mechanisms: tuple[str, ...]
    types: tuple[str, ...]
    versions: tuple[str, ...]


def _bound(offers: dict[int, Offered]) -> _Bound:
    plus: dict[str, None] = {}
    types: dict[str, None] = {}
    versions = []
    for version, offer in sorted(offers.items()):
        every = offer.mechanisms + (offer.sasl2.mechanisms if offer.sasl2 else ())
        bound = [name for name in every if name.upper().endswith("-PLUS")]
        plus |= dict.fromkeys(bound)
        types |= dict.fromkeys(offer.bindings)
        if bound or offer.bindings:
            versions.append(VERSIONS[version])
    return _Bound(mechanisms=tuple(plus), types=tuple(types), versions=tuple(versions))


def _bindings(offers: dict[int, Offered], seen: str) -> list[Finding]:
    bound = _bound(offers)
    if not bound.mechanisms and not bound.types:
        return [
            Finding(
                check="channel-binding",
                severity=Severity.OK,
                finding="no mechanism that binds to the TLS session is offered",
                seen=seen,
            )
        ]
    end_point = "tls-server-end-point" in bound.types
    types = f", for {listed(bound.types)} (XEP-0440)" if bound.types else ", of which kind it does not say"
    mends = [
        Fix("ejabberd", "disable_sasl_mechanisms: [SCRAM-SHA-1-PLUS, SCRAM-SHA-256-PLUS, SCRAM-SHA-512-PLUS]"),
        Fix("Prosody", 'ssl = { protocol = "tlsv1_3" }  (0.12 offers -PLUS with TLS 1.2 alone)'),
    ]
    if end_point:
        mends.insert(0, Fix("xproxy", "--cert FILE --key FILE with the server's own: tls-server-end-point then holds"))
    return [
        Finding(
            check="channel-binding",
            severity=Severity.WARNING,
            finding=f"{listed(bound.mechanisms) or 'channel binding'} offered over TLS "
            + f"{' and '.join(bound.versions)}{types}",
            seen=seen,
            consequence="a login that binds to the TLS session fails behind xproxy, by design; most clients fall back, "
            "and the record says channel-binding-broken-by-proxy",
            fixes=tuple(mends),
        )
    ]


_BOUND_TOKENS: Final = ("-UNIQ", "-EXPR", "-ENDP")


def _sasl2(offer: Offered, seen: str) -> list[Finding]:
    """XEP-0388 and FAST (XEP-0484): tokens with a binding were bound to another TLS session."""
    if offer.sasl2 is None:
        return []
    fast = offer.sasl2.fast_mechanisms
    bound = [name for name in fast if name.upper().endswith(_BOUND_TOKENS)]
    found = [
        Finding(
            check="sasl2",
            severity=Severity.OK,
            finding=f"SASL2 is offered: {listed(offer.sasl2.mechanisms)}" + (f"; FAST: {listed(fast)}" if fast else ""),
            seen=seen,
            consequence="xproxy reads it",
        )
    ]
    if bound:
        found.append(
            Finding(
                check="fast",
                severity=Severity.WARNING,
                finding=f"FAST tokens may be bound to the TLS session: {listed(bound)}",
                seen=seen,
                consequence="each client's first login behind xproxy with a token from before fails once; then it "
                "falls back and gets a new one",
                fixes=(Fix("xproxy", "--cert FILE --key FILE with the server's own: HT-*-ENDP tokens then hold"),),
            )
        )
    return found


def check_compression(offers: list[Offered], seen: str) -> list[Finding]:
    """XEP-0138: what is compressed cannot be read."""
    if not any(_COMPRESSION.intersection(offer.names) for offer in offers):
        return []
    return [
        Finding(
            check="compression",
            severity=Severity.WARNING,
            finding="stream compression is offered (XEP-0138)",
            seen=seen,
            consequence="a client that uses it cannot be read any more: inspection-lost",
            fixes=(
                Fix("ejabberd", "zlib: false"),
                Fix("Prosody", 'take "compression" out of modules_enabled'),
            ),
        )
    ]


def check_limits(offer: Offered, seen: str, ours: StreamLimits) -> Finding:
    """XEP-0478: what the server takes at most, against what xproxy passes on."""
    theirs = offer.features.seen.stanza_bytes_max
    if theirs is None:
        return Finding(
            check="stanza-limit",
            severity=Severity.NOTE,
            finding="how large a stanza may be is not known: the server does not say (XEP-0478)",
            seen=seen,
            consequence=f"xproxy ends a session at {ours.stanza_bytes_max} bytes and records what is over "
            f"{ours.stanza_bytes_warn}; Prosody and ejabberd end it at 262144 by default",
            fixes=(
                Fix("Prosody", f"c2s_stanza_size_limit = {ours.stanza_bytes_warn}"),
                Fix("ejabberd", f"max_stanza_size: {ours.stanza_bytes_warn}"),
                Fix("xproxy", "[stream] stanza_bytes_max, if the server takes more than xproxy does"),
            ),
        )
    if theirs > ours.stanza_bytes_max:
        return Finding(
            check="stanza-limit",
            severity=Severity.WARNING,
            finding=f"the server takes stanzas of {theirs} bytes",
            seen=seen,
            consequence=f"xproxy ends a session already at {ours.stanza_bytes_max}",
            fixes=(Fix("xproxy", f"[stream] stanza_bytes_max = {theirs}"),),
        )
    return Finding(
        check="stanza-limit",
        severity=Severity.OK,
        finding=f"the server takes stanzas of {theirs} bytes, which xproxy passes on",
        seen=seen,
    )
