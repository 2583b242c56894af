import base64
import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from xproxy.journal import tree
from xproxy.journal.format import (
    ENTRY_BYTES_MAX,
    MAGIC,
    PAYLOAD_BYTES_MAX,
    CloseReason,
    Entry,
    EntryType,
    FormatProblem,
    OldSegment,
    OpenReason,
    Seal,
    SegmentClose,
    SegmentName,
    SegmentOpen,
    Tail,
    encode_entry,
    encode_frame,
    encode_notes,
    entries,
    has_magic,
    last_note,
    new_key_of,
    parse_notes,
    parse_stream_directory,
    stream_directory,
    stream_origin,
    tail_of,
)
from xproxy.journal.note import (
    Checkpoint,
    Note,
    NoteProblem,
    Signature,
    VerifierKey,
    note_from_lines,
    parse_note,
)

ORIGIN = "gw1/xproxy/5f0c21aa/sec"


class FixedSigner:
    def __init__(self, name: str = ORIGIN, seed: int = 1) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
        public = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.verifier = VerifierKey(name, public)

    def sign(self, data: bytes) -> bytes:
        return self._key.sign(data)


def note_of(size: int, *signers: FixedSigner) -> Note:
    return Checkpoint(ORIGIN, size, hashlib.sha256(bytes([size % 256])).digest()).sign(signers or (FixedSigner(),))


def leaves_of(count: int) -> list[bytes]:
    return [tree.leaf_hash(number.to_bytes(4, "big")) for number in range(count)]


# The tree

# RFC 6962 test vectors of the certificate-transparency reference implementation (merkle_tree_test.cc): these inputs,
# these roots for 1 ... 8 leaves.
CT_INPUTS = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
CT_ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def test_roots_are_those_of_certificate_transparency():
    frontier = tree.Frontier()
    assert frontier.root().hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    for given_, root in zip(CT_INPUTS, CT_ROOTS, strict=True):
        frontier.append(tree.leaf_hash(bytes.fromhex(given_)))
        assert frontier.root().hex() == root


@given(st.integers(0, 200), st.integers(0, 100))
def test_a_frontier_goes_on_from_its_peaks(first: int, more: int):
    leaves = leaves_of(first + more)
    frontier = tree.Frontier()
    for leaf in leaves[:first]:
        frontier.append(leaf)
    again = tree.Frontier(first, frontier.peaks)
    copy = frontier.copy()
    for leaf in leaves[first:]:
        again.append(leaf)
    assert again.root() == tree.root_of(leaves)
    assert again.size == first + more
    assert copy.root() == tree.root_of(leaves[:first])


@pytest.mark.parametrize(("size", "peaks"), [(1, 0), (2, 2), (0, 1), (-1, 1)])
def test_a_frontier_refuses_peaks_of_another_size(size: int, peaks: int):
    with pytest.raises(ValueError, match="peaks"):
        tree.Frontier(size, [bytes(32)] * peaks)


def test_every_leaf_of_every_small_tree_is_proven_and_no_other():
    leaves = leaves_of(34)
    range_hash = tree.range_hash_of(leaves)
    for size in range(1, 35):
        root = tree.root_of(leaves[:size])
        for index in range(size):
            proof = tree.inclusion_proof(index, size, range_hash)
            tree.verify_inclusion(leaves[index], index, size, proof, root)
            for bad_leaf, bad_index, bad_size, bad_proof, bad_root in (
                (leaves[index - 1] if size > 1 else bytes(32), index, size, proof, root),
                (leaves[index], index, size, [*proof, bytes(32)], root),
                (leaves[index], index, size, proof[:-1] if proof else [bytes(32)], root),
                (leaves[index], size, size, proof, root),
                (leaves[index], index, size, proof, bytes(32)),
            ):
                with pytest.raises(tree.ProofProblem):
                    tree.verify_inclusion(bad_leaf, bad_index, bad_size, bad_proof, bad_root)


def test_every_small_tree_is_consistent_with_those_before_it_and_with_no_other():
    leaves = leaves_of(34)
    range_hash = tree.range_hash_of(leaves)
    roots = [tree.root_of(leaves[:size]) for size in range(35)]
    for new in range(1, 35):
        tree.verify_consistency(0, new, [], roots[0], roots[new])
        for old in range(1, new + 1):
            proof = tree.consistency_proof(old, new, range_hash)
            tree.verify_consistency(old, new, proof, roots[old], roots[new])
            bad = [
                (old, new, [*proof, bytes(32)], roots[old], roots[new]),
                (old, new, proof, bytes(32), roots[new]),
                (old, new, proof, roots[old], bytes(32)),
            ]
            if proof:
                bad += [
                    (old, new, proof[:-1], roots[old], roots[new]),
                    (old, new, [bytes(32), *proof[1:]], roots[old], roots[new]),
                    (new, old, proof, roots[new], roots[old]),
                ]
            for each in bad:
                with pytest.raises(tree.ProofProblem):
                    tree.verify_consistency(*each)


# Notes


def test_a_signed_note_of_go_is_read_and_verified():
    """The example of golang.org/x/mod/sumdb/note's documentation."""
    vkey = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
    data = (
        "If you think cryptography is the answer to your problem,\n"
        "then you don't know what your problem is.\n"
        "\n"
        "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
    ).encode()
    note = parse_note(data)
    key = VerifierKey.from_text(vkey)
    key.verify(note)
    assert str(key) == vkey
    assert note.to_bytes() == data
    with pytest.raises(NoteProblem):
        _ = note.checkpoint


def test_a_checkpoint_comes_back_as_it_was():
    signer, witness = FixedSigner(), FixedSigner("witness.example.org", seed=2)
    checkpoint = Checkpoint(ORIGIN, 20_852, bytes(range(32)))
    note = checkpoint.sign([signer, witness])
    assert parse_note(note.to_bytes()) == note
    assert note_from_lines(note.to_lines()) == note
    assert note.checkpoint == checkpoint
    assert note.text == f"{ORIGIN}\n20852\n{base64.b64encode(bytes(range(32))).decode()}\n"
    signer.verifier.verify(note)
    witness.verifier.verify(note)
    with pytest.raises(NoteProblem, match="not signed by"):
        FixedSigner(seed=3).verifier.verify(note)


def test_no_bit_of_a_note_can_change():
    signer = FixedSigner()
    data = note_of(7).to_bytes()
    for position in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[position] ^= 1 << bit
            with pytest.raises(NoteProblem):
                signer.verifier.verify(parse_note(bytes(changed)))


def test_an_unknown_signature_is_kept_and_proves_nothing():
    note = note_of(3)
    longer = Note(note.text, (Signature("w.example.org", b"abcd", b"x" * 2420), *note.signatures))
    assert parse_note(longer.to_bytes()) == longer
    FixedSigner().verifier.verify(longer)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a\n1\n",
        f"a\n01\n{base64.b64encode(bytes(32)).decode()}\n",
        f"a\n-1\n{base64.b64encode(bytes(32)).decode()}\n",
        f"a\n１\n{base64.b64encode(bytes(32)).decode()}\n",  # a full-width digit
        f"a b\n1\n{base64.b64encode(bytes(32)).decode()}\n",
        f"a\n1\n{base64.b64encode(bytes(31)).decode()}\n",
        f"a\n1\n{base64.b64encode(bytes(32)).decode()}\nextension\n",
        f"a\n1\n{base64.b64encode(bytes(32)).decode()}",
    ],
)
def test_what_is_no_checkpoint_is_refused(text: str):
    with pytest.raises(NoteProblem):
        Checkpoint.from_text(text)


@pytest.mark.parametrize(
    "text", ["", "a", "a+b+c", "a+00000000+AQ==", "a b+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
             "PeterNeumann+c74f20a4+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
             "PeterNeumann+c74f20a3+BBpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"]
)  # fmt: skip
def test_what_is_no_verifier_key_is_refused(text: str):
    with pytest.raises(NoteProblem):
        VerifierKey.from_text(text)


@given(st.binary(max_size=300))
def test_any_octets_are_a_note_or_refused(data: bytes):
    try:
        note = parse_note(data)
    except NoteProblem:
        return
    assert note.to_bytes() == data


def test_notes_of_a_segment_come_back_and_a_cut_one_is_told():
    notes = [
        note_of(size, *signers) for size, signers in ((1, ()), (9, (FixedSigner(), FixedSigner(seed=2))), (10, ()))
    ]
    data = encode_notes(notes)
    starts = [0]
    for note in notes:
        starts.append(starts[-1] + len(note.to_bytes()) + 1)
    for cut in range(len(data) + 1):
        whole = sum(start <= cut for start in starts) - 1
        assert parse_notes(data[:cut]) == (notes[:whole], starts[whole])
        assert last_note(data[:cut]) == (notes[whole - 1] if whole else None)


def test_notes_that_are_none_are_refused():
    data = encode_notes([note_of(1)])
    with pytest.raises(FormatProblem):
        parse_notes(data.replace(b"\n1\n", b"\n01\n"))
    with pytest.raises(FormatProblem):
        last_note(data.replace(b"\n1\n", b"\n01\n"))


# Frames and entries

entry_values = st.builds(
    Entry,
    type=st.sampled_from([EntryType.EVENT, EntryType.CONTROL, EntryType.SEGMENT_OPEN, EntryType.SEGMENT_CLOSE]),
    index=st.integers(0, 2**64 - 1),
    time_ns=st.integers(0, 2**64 - 1),
    payload=st.binary(max_size=200),
    tie=st.none() | st.integers(0, 2**64 - 1),
)


@given(entry_values)
def test_an_entry_comes_back_as_it_was(entry: Entry):
    data = entry.to_bytes()
    assert Entry.from_bytes(data) == entry
    assert encode_entry(entry.type, entry.index, entry.time_ns, entry.payload, entry.tie) == data
    sealed = Entry(type=EntryType.EVENT, index=1, time_ns=2, payload=b"x", is_sealed=True, tie=entry.tie)
    assert Entry.from_bytes(sealed.to_bytes()) == sealed


def test_the_layout_is_what_the_module_says():
    entry = Entry(type=EntryType.EVENT, index=5, time_ns=6, payload=b"hello", tie=7)
    data = bytes.fromhex("02 02 0000000000000005 0000000000000006 0000000000000007") + b"hello"
    assert entry.to_bytes() == data
    assert encode_frame(data) == bytes.fromhex("0000001f") + data + bytes.fromhex("7452d5f8")
    assert tree.leaf_hash(data) == hashlib.sha256(b"\x00" + data).digest()


def test_the_largest_payload_fits_tied_and_encrypted():
    largest = Entry(
        type=EntryType.EVENT, index=0, time_ns=0, payload=bytes(PAYLOAD_BYTES_MAX + 16), is_sealed=True, tie=0
    )
    assert len(largest.to_bytes()) == ENTRY_BYTES_MAX


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(17),
        bytes.fromhex("0000") + bytes(16),
        bytes.fromhex("0500") + bytes(16),
        bytes.fromhex("0204") + bytes(16),
        bytes.fromhex("0401") + bytes(16),
        bytes.fromhex("0202") + bytes(16),
        bytes.fromhex("0200") + bytes(65_534),
    ],
)
def test_what_is_no_entry_is_refused(data: bytes):
    with pytest.raises(FormatProblem):
        Entry.from_bytes(data)


def segment_of(count: int) -> tuple[bytes, list[bytes], list[int]]:
    stored = [encode_entry(EntryType.EVENT, index, 100 + index, b"x" * index) for index in range(count)]
    data, ends = MAGIC, [len(MAGIC)]
    for each in stored:
        data += encode_frame(each)
        ends.append(len(data))
    return data, stored, ends


def test_a_segment_cut_at_every_octet_keeps_its_whole_frames():
    data, stored, ends = segment_of(9)
    assert has_magic(data)
    for cut in range(len(MAGIC), len(data) + 1):
        found = [(end, bytes(entry)) for end, entry in entries(data[:cut])]
        whole = sum(end <= cut for end in ends) - 1
        assert found == list(zip(ends[1:], stored, strict=True))[:whole]
        rest = data[ends[whole] : cut]
        expected = Tail.TORN if any(rest) else Tail.ZEROS if rest else Tail.NOTHING
        assert tail_of(data[:cut], ends[whole]) is expected


def test_no_bit_of_a_frame_can_change():
    data, stored, ends = segment_of(4)
    for position in range(ends[2], ends[3]):
        for bit in range(8):
            changed = bytearray(data)
            changed[position] ^= 1 << bit
            assert [bytes(entry) for _, entry in entries(bytes(changed))] == stored[:2]


def test_zeros_are_the_end():
    data, stored, ends = segment_of(3)
    for count in (1, 7, 8, 100, 70_000):
        longer = data + bytes(count)
        assert [bytes(entry) for _, entry in entries(longer)] == stored
        assert tail_of(longer, ends[-1]) is Tail.ZEROS
        assert tail_of(longer + b"\x01", ends[-1]) is Tail.TORN


# Names


def test_names_of_segments_come_back_and_sort_as_the_log_does():
    names = [SegmentName(0, 1), SegmentName(0, 2), SegmentName(9, 3), SegmentName(10, 4), SegmentName(10, 1_000_000)]
    assert SegmentName(10, 4).segment_file == "00000000000000000010-000004.xj"
    assert SegmentName(10, 4).notes_file == "00000000000000000010-000004.notes"
    assert [SegmentName.from_file(name.segment_file) for name in names] == names
    assert [SegmentName.from_file(name.notes_file) for name in names] == names
    assert sorted([names[3], names[0], names[4], names[2], names[1]]) == names


@pytest.mark.parametrize(
    "name",
    [
        "signing.key",
        "00000000000000000010.xj",
        "0-1.xj",
        "00000000000000000010-000000.xj",
        "00000000000000000010-000004.xj.tmp",
        "00000000000000000010-4.xj",
        "+0000000000000000010-000004.xj",
        "00000000000000000010-00000٤.xj",
    ],
)
def test_what_is_no_name_of_a_segment_is_none(name: str):
    assert SegmentName.from_file(name) is None


def test_streams_have_directories_and_origins():
    for stream in ("sec", "ops"):
        for generation in (1, 2, 13):
            assert parse_stream_directory(stream_directory(stream, generation)) == (stream, generation)
    assert stream_directory("sec", 2) == "sec.g2"
    assert stream_origin("gw1/xproxy/1", "sec", 1) == "gw1/xproxy/1/sec"
    assert stream_origin("gw1/xproxy/1", "sec", 2) == "gw1/xproxy/1/sec/g2"
    for name in ("", "lock", "sec.g1", "sec.g02", "sec.gx", "sec.", "secs"):
        assert parse_stream_directory(name) is None


# Opening and closing entries


def full_open() -> SegmentOpen:
    return SegmentOpen(
        origin=ORIGIN,
        name=SegmentName(5, 4),
        reason=OpenReason.STARTED,
        vkey=FixedSigner().verifier,
        peaks=(bytes(32), bytes(range(32))),
        software="xproxy 0.1.0",
        previous=OldSegment(
            name=SegmentName(0, 1), log_bytes=812, is_closed=False, file_bytes=4096, tail_sha256=bytes(range(32))
        ),
        torn=(OldSegment(name=SegmentName(5, 2), log_bytes=0, is_closed=False),),
        unsigned_from=3,
        note=note_of(3).to_text(),
        predecessor=note_of(9).to_text(),
        seal=Seal(aead="AES-256-GCM", salt=b"s", commitment=b"c", recipients=("auditor",)),
    )


def test_an_opening_entry_comes_back_as_it_was():
    full = full_open()
    assert SegmentOpen.from_bytes(full.to_bytes()) == full
    bare = SegmentOpen(
        origin=ORIGIN,
        name=SegmentName(0, 1),
        reason=OpenReason.CREATED,
        vkey=FixedSigner().verifier,
        peaks=(),
        software="xproxy 0.1.0",
    )
    assert SegmentOpen.from_bytes(bare.to_bytes()) == bare


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"version":1', b'"version":2'),
        (b'"serial":4', b'"serial":-4'),
        (b'"serial":4', b'"serial":true'),
        (b'"first_index":5', b'"first_index":7'),
        (b'"reason":"started"', b'"reason":"bored"'),
        (b'"is_closed":false', b'"is_closed":0'),
        (b'"software":"xproxy 0.1.0"', b'"software":1'),
        (b'"torn":[', b'"turn":['),
        (b"{", b"["),
    ],
)
def test_an_opening_entry_that_is_none_is_refused(old: bytes, new: bytes):
    data = full_open().to_bytes()
    assert old in data
    with pytest.raises(FormatProblem):
        SegmentOpen.from_bytes(data.replace(old, new))


def test_a_closing_entry_comes_back_as_it_was():
    close = SegmentClose(reason=CloseReason.AGE, entries_count=3, time_ns_min=1, time_ns_max=2)
    assert SegmentClose.from_bytes(close.to_bytes()) == close
    with pytest.raises(FormatProblem):
        SegmentClose.from_bytes(close.to_bytes().replace(b"age", b"rage"))


def test_a_rotation_names_the_new_key():
    key = FixedSigner(seed=2).verifier
    payload = b'{"event":{"action":"key-rotated"},"xproxy":{"journal":{"vkey":"%s"}}}' % str(key).encode()
    entry = Entry(type=EntryType.CONTROL, index=1, time_ns=1, payload=payload)
    assert new_key_of(entry) == key
    assert new_key_of(Entry(type=EntryType.EVENT, index=1, time_ns=1, payload=payload)) is None
    other = payload.replace(b'"action":"key-rotated"', b'"action":"x","why":"key-rotated"')
    assert new_key_of(Entry(type=EntryType.CONTROL, index=1, time_ns=1, payload=other)) is None
    broken = payload.replace(b"vkey", b"key")
    with pytest.raises(FormatProblem):
        new_key_of(Entry(type=EntryType.CONTROL, index=1, time_ns=1, payload=broken))
