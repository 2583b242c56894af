from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.support.disk import Fault, MemoryDisk
from xproxy.journal.keys import KeyLost, KeyRing, SigningKey
from xproxy.journal.note import Checkpoint, NoteProblem
from xproxy.journal.storage import Disk

NAME = "gw1/xproxy/5f0c21aa/sec"
DIRECTORY = Path("/state/journal/sec")


@pytest.fixture
def disk() -> MemoryDisk:
    disk = MemoryDisk()
    disk.make_directory(DIRECTORY)
    return disk


def test_a_key_comes_back_as_it_was():
    key = SigningKey.generate(NAME)
    again = SigningKey.from_pem(NAME, key.to_pem())
    assert again.verifier == key.verifier
    assert again.sign(b"x") == key.sign(b"x")
    key.verifier.verify(Checkpoint(NAME, 1, bytes(32)).sign([again]))


def test_a_key_is_never_printed():
    key = SigningKey.generate(NAME)
    assert "PRIVATE" not in repr(key)
    assert key.to_pem().splitlines()[1].decode() not in repr(key)


@pytest.mark.parametrize("data", [b"", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_what_is_no_key_is_lost(data: bytes):
    with pytest.raises(KeyLost):
        SigningKey.from_pem(NAME, data)


def test_another_kind_of_key_is_lost():
    pem = generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(KeyLost, match="Ed25519"):
        SigningKey.from_pem(NAME, pem)


def test_a_ring_is_opened_again(disk: MemoryDisk):
    ring = KeyRing.create(disk, DIRECTORY, NAME)
    again = KeyRing.open_(disk, DIRECTORY, ring.current.verifier)
    assert again.current.verifier == ring.current.verifier
    assert [signer.verifier for signer in again.signers] == [ring.current.verifier]


def test_the_key_in_force_must_be_there(disk: MemoryDisk):
    KeyRing.create(disk, DIRECTORY, NAME)
    with pytest.raises(KeyLost):
        KeyRing.open_(disk, DIRECTORY, SigningKey.generate(NAME).verifier)


def test_keys_are_for_their_owner_alone(tmp_path: Path):
    KeyRing.create(Disk(), tmp_path, NAME)
    assert (tmp_path / "signing.key").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["signing.key"]


def test_a_rotation_signs_with_both_and_then_with_the_new_one(disk: MemoryDisk):
    ring = KeyRing.create(disk, DIRECTORY, NAME)
    old = ring.current.verifier
    new = ring.prepare()
    assert ring.signers[0].verifier == old
    ring.bring_into_force(new)
    note = Checkpoint(NAME, 9, bytes(32)).sign(ring.signers)
    old.verify(note)
    new.verifier.verify(note)
    ring.finish()
    note = Checkpoint(NAME, 10, bytes(32)).sign(ring.signers)
    new.verifier.verify(note)
    with pytest.raises(NoteProblem, match="not signed by"):
        old.verify(note)
    assert disk.names(DIRECTORY) == ["signing.key"]
    with pytest.raises(KeyLost):
        KeyRing.open_(disk, DIRECTORY, old)


def test_a_rotation_that_never_was_is_forgotten(disk: MemoryDisk):
    ring = KeyRing.create(disk, DIRECTORY, NAME)
    ring.prepare()
    again = KeyRing.open_(disk, DIRECTORY, ring.current.verifier)
    assert again.outgoing is None
    assert disk.names(DIRECTORY) == ["signing.key"]


def test_a_rotation_whose_record_failed_is_taken_back(disk: MemoryDisk):
    ring = KeyRing.create(disk, DIRECTORY, NAME)
    old = ring.current
    ring.bring_into_force(ring.prepare())
    ring.revert()
    assert ring.signers == (old,)


def test_a_rotation_cut_short_goes_on_with_both_keys(disk: MemoryDisk):
    ring = KeyRing.create(disk, DIRECTORY, NAME)
    old, new = ring.current, ring.prepare()
    again = KeyRing.open_(disk, DIRECTORY, new.verifier)  # so the log says
    assert [signer.verifier for signer in again.signers] == [old.verifier, new.verifier]
    again.finish()
    assert [signer.verifier for signer in KeyRing.open_(disk, DIRECTORY, new.verifier).signers] == [new.verifier]


def test_both_keys_go_on_signing_while_the_old_one_cannot_be_destroyed(disk: MemoryDisk):
    ring = KeyRing.create(disk, DIRECTORY, NAME)
    ring.bring_into_force(ring.prepare())
    disk.plan = lambda call, what, path: Fault() if what == "rename" else None
    with pytest.raises(OSError, match="Input/output"):
        ring.finish()
    assert len(ring.signers) == 2
    disk.plan = None
    ring.finish()
    assert len(ring.signers) == 1
