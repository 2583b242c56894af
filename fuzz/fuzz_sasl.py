"""Fuzz the SASL decoders: no octets raise, and no secret is told.

    python fuzz/fuzz_sasl.py --seconds 60 [--seed N]

Messages of every mechanism are taken from a corpus, mutated octet by octet, cut, joined and given to every decoder,
in base64 too. A secret of letters that no name has stands where a password, proof or nonce stands; where the mutation
left the mechanism's grammar alone, finding the secret in what was told is a failure. The seed is printed.
"""

import argparse
import base64
import random
import secrets
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from xproxy.xmpp.sasl import decode_base64, decoder_for

SECRET = b"QXZQXZQXZ"
CORPUS = {
    "PLAIN": [b"\0user\0%s", b"admin@h\0user\0%s"],
    "SCRAM-SHA-256": [
        b"n,,n=user,r=%s",
        b"n,a=z=2Cz,n=us=3Der,r=%s,x=%s",
        b"c=biws,r=%s,p=%s",
        b"r=%s,s=%s,i=4096,h=G6k/rBLDqgOhRRaCuuatSDFkJ08=,t=0304",
        b"v=%s",
        b"e=%s",
    ],
    "SCRAM-SHA-1-PLUS": [b"p=tls-exporter,,n=user,r=%s", b"p=%s,s=%s,r=%s", b"y,,m=%s,n=user,r=%s"],
    "DIGEST-MD5": [
        b'charset=utf-8,username="chris",realm="r",nonce="%s",cnonce="%s",response=%s,qop=auth-int',
        b'nonce="%s",username="a\\"b\\\\",authzid=z',
        b"rspauth=%s",
    ],
    "EXTERNAL": [b"juliet@example.com", b""],
    "ANONYMOUS": [b"%s"],
    "CRAM-MD5": [b"user b913a602c7eda7a495b4e6e7334d3890", b"user %s", b"<1896.%s@host>"],
    "OAUTHBEARER": [
        b"n,a=user@h,\x01host=h\x01port=5222\x01auth=Bearer %s\x01\x01",
        b"n,,\x01auth=%s\x01x=%s\x01\x01",
        b'{"status":"invalid_token","scope":"%s"}',
        b"\x01",
    ],
    "X-OAUTH2": [b"\0user@h\0%s"],
    "HT-SHA-256-ENDP": [b"user\0%s", b"user\0%s\0%s", b"%s"],
    "X-UNKNOWN": [b"%s", b"u\0%s"],
}
# One octet changed may move the border between a name and a secret; these change none.
SAFE_FOR_SECRETS = ("whole", "cut", "head")


def tell(mechanism: str, messages: list[bytes]) -> str:
    """Return everything that is left of a dialogue."""
    decoder = decoder_for(mechanism)
    left = []
    for step, message in enumerate(messages):
        left.append(repr(decoder.response(message, step)))
        left.append(repr(decoder.challenge(message, step + 1)))
    return " ".join(left) + repr(vars(decoder))


def mutate(message: bytes, rng: random.Random) -> bytes:
    """Change, remove, repeat or insert a few octets."""
    data = bytearray(message)
    for _ in range(rng.randint(1, 6)):
        at = rng.randint(0, len(data))
        match rng.randrange(4):
            case 0:
                data[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                del data[at : at + rng.randint(1, 4)]
            case 2:
                data[at:at] = data[at : at + rng.randint(1, 8)]
            case _:
                data[at:at] = rng.choice([b"\0", b",", b"=", b'"', b"\\", b"n=", b"p=", b",,", b"\xc3", b" "])
    return bytes(data)


def one(rng: random.Random) -> None:
    """One dialogue of one mechanism."""
    mechanism = rng.choice(list(CORPUS))
    kind = rng.choice([*SAFE_FOR_SECRETS, "mutated", "foreign"])
    source = rng.choice(list(CORPUS)) if kind == "foreign" else mechanism
    messages = [template.replace(b"%s", SECRET) for template in rng.choices(CORPUS[source], k=rng.randint(1, 3))]
    if kind == "cut":
        messages = [message[: rng.randint(0, len(message))] for message in messages]
    elif kind == "head":
        messages = messages[:1] * 2
    elif kind == "mutated":
        messages = [mutate(message, rng) for message in messages]
    left = tell(mechanism, messages)
    if kind in SAFE_FOR_SECRETS and SECRET.decode() in left:
        raise AssertionError(f"a secret was told: {mechanism} {messages!r} -> {left}")
    text = base64.b64encode(messages[0]).decode()
    data, encoding = decode_base64(text)
    if (data, encoding) != (messages[0], "strict"):
        raise AssertionError(f"base64 is not read back: {text!r} is {encoding}")
    decode_base64("".join(rng.choice([text[i : i + 1], "=", " ", "\u00e4"]) for i in range(len(text))))


def main() -> None:
    """Run for the time asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    options = parser.parse_args()
    print(f"fuzz_sasl: seed {options.seed}", flush=True)
    rng = random.Random(options.seed)
    end = time.monotonic() + options.seconds
    count = 0
    while time.monotonic() < end:
        one(rng)
        count += 1
    print(f"fuzz_sasl: {count} dialogues, nothing found")


if __name__ == "__main__":
    main()
