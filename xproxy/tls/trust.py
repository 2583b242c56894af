"""How clients are made to trust the local CA: for each kind of system the files it wants and the commands to give.

Every text says what the reader has to do and how it is undone. Commands are for a POSIX shell and stand for themselves:
the tests execute those of the systems that are at hand.
"""

import plistlib
import shlex
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Final

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

JAVA_PASSWORD: Final = "changeit"
_PROFILE_IDENTIFIER: Final = "org.xproxy.local-ca"


@attrs.frozen(kw_only=True)
class Step:
    """One thing to do: a sentence, and the command if there is one."""

    text: str
    command: str | None = None


@attrs.frozen(kw_only=True)
class HowTo:
    """What one kind of system needs."""

    system: str
    title: str
    files: tuple[tuple[Path, bytes], ...]  # where each is written, and what
    steps: tuple[Step, ...]
    undo: tuple[Step, ...]


@attrs.frozen
class _Ca:
    """The CA certificate and the directory that files go to."""

    certificate: x509.Certificate
    directory: Path

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def name(self) -> str:
        """The common name, which bears the start of the key's hash: two installations have two."""
        (attribute,) = self.certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        return str(attribute.value)

    @property
    def sha1(self) -> str:
        return self.certificate.fingerprint(hashes.SHA1()).hex().upper()

    def file(self, name: str) -> Path:
        return self.directory / name


def how_to(system: str, certificate: x509.Certificate, directory: Path) -> HowTo:
    """Return how clients of ``system`` (one of ``SYSTEMS``) are made to trust ``certificate``.

    ``directory``: absolute; the files are to be written there.
    """
    assert directory.is_absolute()
    return _HOW_TOS[system](_Ca(certificate, directory))


def render_profile(certificate: x509.Certificate) -> bytes:
    """Return a configuration profile for Apple's systems that installs ``certificate`` as an authority.

    The keys are those of Apple's "Configuration Profile Reference": com.apple.security.root. The same certificate gives
    the same profile, so that installing it twice replaces it.
    """
    ca = _Ca(certificate, Path())
    identity = uuid.UUID(bytes=certificate.fingerprint(hashes.SHA256())[:16])
    payload = {
        "PayloadType": "com.apple.security.root",
        "PayloadVersion": 1,
        "PayloadIdentifier": f"{_PROFILE_IDENTIFIER}.{identity}.certificate",
        "PayloadUUID": str(uuid.uuid5(identity, "certificate")).upper(),
        "PayloadDisplayName": ca.name,
        "PayloadDescription": "The authority that signs what xproxy shows to clients.",
        "PayloadCertificateFileName": "xproxy-ca.cer",
        "PayloadContent": ca.der,
    }
    profile = {
        "PayloadType": "Configuration",
        "PayloadVersion": 1,
        "PayloadIdentifier": f"{_PROFILE_IDENTIFIER}.{identity}",
        "PayloadUUID": str(uuid.uuid5(identity, "profile")).upper(),
        "PayloadDisplayName": ca.name,
        "PayloadDescription": "For tests through xproxy. Remove it afterwards: whoever runs xproxy reads along.",
        "PayloadRemovalDisallowed": False,
        "PayloadContent": [payload],
    }
    return plistlib.dumps(profile)


NETWORK_SECURITY_CONFIG: Final = b"""<?xml version="1.0" encoding="utf-8"?>
<network-security-config>
    <!-- Debug builds (android:debuggable) trust the proxy's CA beside their own; release builds do not. -->
    <debug-overrides>
        <trust-anchors>
            <certificates src="@raw/xproxy_ca" />
        </trust-anchors>
    </debug-overrides>
</network-security-config>
"""


def _ios_simulator(ca: _Ca) -> HowTo:
    path = ca.file("xproxy-ca.pem")
    return HowTo(
        system="ios-simulator",
        title="iOS simulator (Xcode 11.4 or later)",
        files=((path, ca.pem),),
        steps=(
            Step(
                text="Add the CA to the simulator that runs now; it is trusted at once",
                command=f"xcrun simctl keychain booted add-root-cert {_quoted(path)}",
            ),
        ),
        undo=(Step(text="Forget all that was added to it", command="xcrun simctl keychain booted reset"),),
    )


def _apple_profile(ca: _Ca) -> HowTo:
    path = ca.file("xproxy-ca.mobileconfig")
    return HowTo(
        system="apple-profile",
        title="iPhone, iPad: a configuration profile",
        files=((path, render_profile(ca.certificate)),),
        steps=(
            Step(text=f"Bring {path} to the device: AirDrop, mail, or a web server"),
            Step(text="Install it: Settings, General, VPN & Device Management"),
            Step(text="Trust it: Settings, General, About, Certificate Trust Settings; without this it does nothing"),
        ),
        undo=(Step(text="Settings, General, VPN & Device Management: remove the profile"),),
    )


def _macos(ca: _Ca) -> HowTo:
    path = ca.file("xproxy-ca.pem")
    keychain = "/Library/Keychains/System.keychain"
    return HowTo(
        system="macos",
        title="macOS",
        files=((path, ca.pem),),
        steps=(
            Step(
                text="Add the CA to the system's keychain and trust it",
                command=f"sudo security add-trusted-cert -d -r trustRoot -k {keychain} {_quoted(path)}",
            ),
        ),
        undo=(Step(text="Remove it", command=f"sudo security delete-certificate -Z {ca.sha1} -t {keychain}"),),
    )


def _android(ca: _Ca) -> HowTo:
    certificate = ca.file("res/raw/xproxy_ca.pem")
    config = ca.file("res/xml/network_security_config.xml")
    return HowTo(
        system="android",
        title="Android: an app's network security configuration",
        files=((certificate, ca.pem), (config, NETWORK_SECURITY_CONFIG)),
        steps=(
            Step(text=f"Copy {ca.file('res')} over the app's src/debug/res"),
            Step(
                text="Name it in the app's manifest, in the element application",
                command='android:networkSecurityConfig="@xml/network_security_config"',
            ),
            Step(
                text="An app that brings a TrustManager of its own must ask it too; since Android 7 no app trusts what "
                "the user installs in Settings unless its configuration says so"
            ),
        ),
        undo=(Step(text="Remove both files and the attribute; release builds never trust the CA"),),
    )


def _debian(ca: _Ca) -> HowTo:
    path = ca.file("xproxy-ca.crt")  # update-ca-certificates takes no other ending
    installed = f"/usr/local/share/ca-certificates/{path.name}"
    return HowTo(
        system="debian",
        title="Debian, Ubuntu: all programs that use the system's authorities",
        files=((path, ca.pem),),
        steps=(
            Step(text="Put it among the local authorities", command=f"sudo cp {_quoted(path)} {installed}"),
            Step(text="Make the system's list anew", command="sudo update-ca-certificates"),
        ),
        undo=(
            Step(text="Remove it and make the list anew", command=f"sudo rm {installed}"),
            Step(text="--fresh also removes the links to it", command="sudo update-ca-certificates --fresh"),
        ),
    )


def _java(ca: _Ca) -> HowTo:
    path, store = ca.file("xproxy-ca.pem"), ca.file("xproxy-truststore.p12")
    alias = ca.name.rpartition(" ")[2]
    access = f"-keystore {_quoted(store)} -storetype PKCS12 -storepass {JAVA_PASSWORD}"
    return HowTo(
        system="java",
        title="Java: a trust store for one program",
        files=((path, ca.pem),),
        steps=(
            Step(
                text="Make a store that holds the CA",
                command=f"keytool -importcert -noprompt -alias xproxy-{alias} -file {_quoted(path)} {access}",
            ),
            Step(
                text="Run the program with it; it then trusts this CA and no other",
                command=f"java -Djavax.net.ssl.trustStore={_quoted(store)} -Djavax.net.ssl.trustStoreType=PKCS12 "
                f"-Djavax.net.ssl.trustStorePassword={JAVA_PASSWORD} ...",
            ),
        ),
        undo=(Step(text="Remove the store", command=f"rm {_quoted(store)}"),),
    )


def _node(ca: _Ca) -> HowTo:
    path = ca.file("xproxy-ca.pem")
    return HowTo(
        system="node",
        title="Node.js",
        files=((path, ca.pem),),
        steps=(
            Step(
                text="Run the program with it; it is trusted beside the authorities that Node.js brings",
                command=f"NODE_EXTRA_CA_CERTS={_quoted(path)} node ...",
            ),
        ),
        undo=(Step(text="Run it without"),),
    )


def _nss(ca: _Ca) -> HowTo:
    path = ca.file("xproxy-ca.pem")
    database = '"sql:$HOME/.pki/nssdb"'
    name = _quoted(ca.name)
    return HowTo(
        system="nss",
        title="NSS: Chromium on Linux; Firefox and Thunderbird with -d sql:PROFILE (certutil is in libnss3-tools)",
        files=((path, ca.pem),),
        steps=(
            Step(
                text="Make the database if there is none",
                command='[ -e "$HOME/.pki/nssdb/cert9.db" ] || '
                f'{{ mkdir -p "$HOME/.pki/nssdb" && certutil -N --empty-password -d {database}; }}',
            ),
            Step(
                text="Trust the CA for servers",
                command=f"certutil -A -d {database} -n {name} -t C,, -i {_quoted(path)}",
            ),
        ),
        undo=(Step(text="Remove it", command=f"certutil -D -d {database} -n {name}"),),
    )


def _openssl(ca: _Ca) -> HowTo:
    path = ca.file("xproxy-ca.pem")
    return HowTo(
        system="openssl",
        title="Python (ssl), Go, and programs that leave it to OpenSSL",
        files=((path, ca.pem),),
        steps=(
            Step(
                text="Run the program with it; it then trusts this CA and no other (Go: not on macOS)",
                command=f"SSL_CERT_FILE={_quoted(path)} ...",
            ),
        ),
        undo=(Step(text="Run it without"),),
    )


_HOW_TOS: Final[dict[str, Callable[[_Ca], HowTo]]] = {
    "ios-simulator": _ios_simulator,
    "apple-profile": _apple_profile,
    "macos": _macos,
    "android": _android,
    "debian": _debian,
    "java": _java,
    "node": _node,
    "nss": _nss,
    "openssl": _openssl,
}
SYSTEMS: Final = tuple(_HOW_TOS)


def _quoted(value: Path | str) -> str:
    return shlex.quote(str(value))
