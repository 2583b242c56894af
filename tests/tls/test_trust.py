"""How clients are made to trust the CA: what is written for them, and the commands, executed where they can be."""

import os
import plistlib
import shutil
import socket
import subprocess
import sys
import threading
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from xproxy.tls.authority import Authority
from xproxy.tls.contexts import TLS_1_3, ClientLegContexts
from xproxy.tls.trust import JAVA_PASSWORD, SYSTEMS, HowTo, how_to, render_profile

REFUSALS_OF_NODE = (
    "UNABLE_TO_GET_ISSUER_CERT_LOCALLY\n",
    "UNABLE_TO_VERIFY_LEAF_SIGNATURE\n",
    "SELF_SIGNED_CERT_IN_CHAIN\n",
)
JAVA = Path(__file__).parents[1] / "support" / "TlsClient.java"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.open_(tmp_path / "state", domains=("localhost",))


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """An environment whose home is nobody's."""
    home = tmp_path / "home with a blank"
    home.mkdir()
    return os.environ | {"HOME": str(home)}


def written(system: str, authority: Authority, directory: Path) -> HowTo:
    guide = how_to(system, authority.certificate, directory)
    for path, data in guide.files:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return guide


def do(command: str | None, environment: dict[str, str], *, status: int = 0) -> str:
    assert command is not None
    done = subprocess.run(
        ["sh", "-c", command], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == status, done.stderr
    return done.stdout


def need(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")


@contextmanager
def serving(authority: Authority) -> Iterator[int]:
    """A TLS server on localhost that shows a leaf; gives its port."""
    context = ClientLegContexts().get(authority.leaf("localhost"), version=TLS_1_3, alpn=None)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError:
                    return
                sock.settimeout(10)
                try:
                    with context.wrap_socket(sock, server_side=True) as tls:
                        tls.sendall(b"trusted\n")
                        tls.recv(1)
                except OSError:  # refused
                    sock.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)


@pytest.mark.parametrize("system", SYSTEMS)
def test_each_system_has_files_steps_and_a_way_back(authority: Authority, tmp_path: Path, system: str) -> None:
    guide = how_to(system, authority.certificate, tmp_path / "it's here")
    assert guide.system == system
    assert guide.files
    assert guide.steps
    assert guide.undo
    for path, data in guide.files:
        assert path.is_relative_to(tmp_path / "it's here")
        assert b"PRIVATE" not in data
    for step in (*guide.steps, *guide.undo):
        assert step.text
        if step.command is not None and system != "android":
            done = subprocess.run(["sh", "-nc", step.command], capture_output=True, check=False)
            assert done.returncode == 0, done.stderr


def test_the_profile_for_apple_s_devices(authority: Authority) -> None:
    profile = plistlib.loads(render_profile(authority.certificate))
    assert (profile["PayloadType"], profile["PayloadVersion"]) == ("Configuration", 1)
    (payload,) = profile["PayloadContent"]
    assert payload["PayloadType"] == "com.apple.security.root"
    assert x509.load_der_x509_certificate(payload["PayloadContent"]) == authority.certificate
    identifiers = [part[key] for part in (profile, payload) for key in ("PayloadUUID", "PayloadIdentifier")]
    assert len(set(identifiers)) == 4
    assert profile["PayloadRemovalDisallowed"] is False
    assert render_profile(authority.certificate) == render_profile(authority.certificate)


def test_profiles_of_two_installations_stand_side_by_side(authority: Authority, tmp_path: Path) -> None:
    other = Authority.open_(tmp_path / "other")
    first, second = (plistlib.loads(render_profile(each.certificate)) for each in (authority, other))
    for key in ("PayloadUUID", "PayloadIdentifier", "PayloadDisplayName"):
        assert first[key] != second[key]


def test_android_s_network_security_configuration(authority: Authority, tmp_path: Path) -> None:
    guide = written("android", authority, tmp_path)
    (certificate, _), (config, _) = guide.files
    root = ET.fromstring(config.read_bytes())
    assert root.tag == "network-security-config"
    (source,) = root.findall("./debug-overrides/trust-anchors/certificates")
    kind, name = source.attrib["src"].removeprefix("@").split("/")
    assert certificate == tmp_path / "res" / kind / f"{name}.pem"
    assert name.replace("_", "").isalnum()
    assert name == name.lower()  # names of resources
    assert x509.load_pem_x509_certificate(certificate.read_bytes()) == authority.certificate
    assert not root.findall("./base-config")  # release builds trust nothing new


@pytest.mark.slow
def test_java(authority: Authority, tmp_path: Path, home: dict[str, str]) -> None:
    need("keytool")
    guide = written("java", authority, tmp_path)
    do(guide.steps[0].command, home)
    with serving(authority) as port:
        run = guide.steps[1].command
        assert run is not None
        assert JAVA_PASSWORD in run
        assert do(run.replace("...", f"{JAVA} localhost {port}"), home) == "trusted\n"
        untrusting = f"java {JAVA} localhost {port}"
        assert "PKIX path building failed" in do(untrusting + " 2>&1", home, status=1)
    do(guide.undo[0].command, home)


@pytest.mark.slow
def test_node(authority: Authority, tmp_path: Path, home: dict[str, str]) -> None:
    need("node")
    guide = written("node", authority, tmp_path)
    script = tmp_path / "client.js"
    script.write_text(
        "const c = require('tls').connect({host: '127.0.0.1', servername: 'localhost', port: process.argv[2]});\n"
        "c.on('data', (data) => { process.stdout.write(data); c.end(); });\n"
        "c.on('error', (error) => { console.log(error.code); process.exit(1); });\n"
    )
    with serving(authority) as port:
        run = guide.steps[0].command
        assert run is not None
        assert do(run.replace("...", f"{script} {port}"), home) == "trusted\n"
        assert do(f"node {script} {port}", home, status=1) in REFUSALS_OF_NODE


@pytest.mark.slow
def test_python_and_openssl(authority: Authority, tmp_path: Path, home: dict[str, str]) -> None:
    guide = written("openssl", authority, tmp_path)
    code = (
        "import socket, ssl, sys; "
        "s = ssl.create_default_context().wrap_socket(socket.create_connection(('127.0.0.1', int(sys.argv[1]))), "
        "server_hostname='localhost'); print(s.recv(8).decode(), end='')"
    )
    with serving(authority) as port:
        run = guide.steps[0].command
        assert run is not None
        python = f'{sys.executable} -c "{code}" {port}'
        assert do(run.replace("...", python), home) == "trusted\n"
        assert "CERTIFICATE_VERIFY_FAILED" in do(python + " 2>&1", home, status=1)


@pytest.mark.slow
def test_debian(authority: Authority, tmp_path: Path, home: dict[str, str]) -> None:
    """The commands as they are, but in a system of their own below a scratch directory."""
    need("update-ca-certificates")
    guide = written("debian", authority, tmp_path)
    local, etc = tmp_path / "local", tmp_path / "etc"
    local.mkdir()
    etc.mkdir()
    trustme.CA().cert_pem.write_to_path(str(local / "another.crt"))
    (tmp_path / "conf").write_text("")
    (tmp_path / "hooks").mkdir()
    elsewhere = (
        f"update-ca-certificates --localcertsdir '{local}' --etccertsdir '{etc}' --certsconf '{tmp_path / 'conf'}' "
        f"--hooksdir '{tmp_path / 'hooks'}'"
    )

    def here(command: str | None) -> str:
        assert command is not None
        moved = command.replace("/usr/local/share/ca-certificates", str(local)).replace("sudo ", "")
        return moved.replace("update-ca-certificates", elsewhere)

    for step in guide.steps:
        do(here(step.command), home)
    bundle = etc / "ca-certificates.crt"
    assert authority.certificate in x509.load_pem_x509_certificates(bundle.read_bytes())
    # A program that looks certificates up by the hash of their subject finds it too.
    verify = ["openssl", "verify", "-CApath", str(etc), str(authority.leaf("localhost").cert_path)]
    subprocess.run(verify, check=True, capture_output=True)
    for step in guide.undo:
        do(here(step.command), home)
    assert authority.certificate.public_bytes(Encoding.PEM) not in bundle.read_bytes()
    assert subprocess.run(verify, check=False, capture_output=True).returncode != 0


@pytest.mark.slow
def test_nss(authority: Authority, tmp_path: Path, home: dict[str, str]) -> None:
    need("certutil")
    guide = written("nss", authority, tmp_path)
    for _ in range(2):  # twice does no harm
        for step in guide.steps:
            do(step.command, home)
    leaf = authority.leaf("localhost").cert_path
    database = 'certutil -d "sql:$HOME/.pki/nssdb"'
    do(f"{database} -A -n leaf -t ,, -i '{leaf}'", home)
    do(f"{database} -V -n leaf -u V", home)
    do(guide.undo[0].command, home)
    do(f"{database} -V -n leaf -u V", home, status=255)
