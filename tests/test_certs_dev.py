import shutil
import ssl
import stat
import subprocess
from pathlib import Path

import pytest

from tests.support.handshake import shake
from xproxy.tls.credential import ServerFiles
from xproxy.tls.verify import Authorities, verify_upstream

SCRIPT = Path(__file__).resolve().parent.parent / "certs" / "make-dev.sh"

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")


def make(*arguments):
    return subprocess.run(["sh", SCRIPT, *arguments], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    directory = tmp_path_factory.mktemp("dev certs")  # a blank in the path is no obstacle
    done = make("example.org", directory)
    assert done.returncode == 0, done.stderr
    return directory


def test_what_is_made(made):
    assert sorted(path.name for path in made.iterdir()) == ["ca.key", "ca.pem", "example.org.key", "example.org.pem"]
    for name in ("ca.key", "example.org.key"):
        assert stat.S_IMODE((made / name).stat().st_mode) == 0o600


def test_it_is_strictly_valid(made):
    command = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", made / "ca.pem"]
    done = subprocess.run([*command, made / "example.org.pem"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_it_serves_and_proves_the_xmpp_domain(made):
    files = ServerFiles.load(made / "example.org.pem", made / "example.org.key")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    files.load_into(server)
    client = ssl.create_default_context()
    Authorities.load(made / "ca.pem").load_into(client)
    handshake = shake(client, server, name="example.org")
    assert handshake.client_error is None
    names = verify_upstream(handshake.client, "example.org").names
    assert names.dns == names.xmpp == ("example.org",)
    assert names.srv == ("_xmpp-client.example.org",)


def test_run_again_it_keeps_the_ca(made):
    before = (made / "ca.pem").read_bytes(), (made / "ca.key").read_bytes()
    assert make("xn--bcher-kva.example", made).returncode == 0
    assert ((made / "ca.pem").read_bytes(), (made / "ca.key").read_bytes()) == before
    ServerFiles.load(made / "xn--bcher-kva.example.pem", made / "xn--bcher-kva.example.key")


@pytest.mark.parametrize("domain", [[], [""], ["../x"], ["a b"], ["-x"], ["bücher.example"], ["a/b"]])
def test_what_is_no_domain_is_refused(domain, tmp_path):
    done = make(*domain, *([tmp_path / "x"] if domain else []))
    assert done.returncode == 2
    assert "usage" in done.stderr
    assert list(tmp_path.iterdir()) == []
