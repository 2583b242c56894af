"""SASL against the examples of the specifications."""

import pytest

from xproxy.peer import auth


@pytest.mark.parametrize("text", ["", "=", "AA==", "AAA=", "AAAA"])
def test_base64_that_is_taken(text: str) -> None:
    auth.decode(text)


@pytest.mark.parametrize("text", ["A", "AA", "AA=", "AA===", "A A=", "AAAA\n", "AA-_", "é==="])
def test_base64_that_is_not(text: str) -> None:
    with pytest.raises(auth.SaslRefused) as caught:
        auth.decode(text)
    assert caught.value.condition == "incorrect-encoding"


def test_empty_message_is_an_equals_sign() -> None:
    assert auth.encode(b"") == "="
    assert auth.decode("=") == b""


@pytest.mark.parametrize("mechanism", auth.MECHANISMS)
def test_both_ends_agree(mechanism: str) -> None:
    accounts = auth.Accounts("example.test", {"juliet": "r0m30myr0m30"})
    server = auth.server_exchange(mechanism, accounts)
    client = auth.client_exchange(mechanism, "juliet", "r0m30myr0m30")
    message = server.step(client.first())
    while server.user is None:
        message = server.step(client.respond(message))
    client.finish(message)
    assert server.user == "juliet"


def test_a_server_that_does_not_know_the_password_is_found_out() -> None:
    honest = auth.Accounts("example.test", {"juliet": "one"})
    server, client = auth.ServerScram("SCRAM-SHA-1", honest), auth.ClientScram("SCRAM-SHA-1", "juliet", "one")
    server.step(client.respond(server.step(client.first())))
    with pytest.raises(auth.SaslRefused) as caught:
        client.finish(b"v=AAAA")
    assert caught.value.condition == "server-not-authentic"


def test_a_stranger_is_challenged_with_a_salt_that_stays() -> None:
    accounts = auth.Accounts("example.test", {})
    assert accounts.keys("SCRAM-SHA-1", "tybalt") == accounts.keys("SCRAM-SHA-1", "tybalt")
    assert accounts.keys("SCRAM-SHA-1", "tybalt")[0] != accounts.keys("SCRAM-SHA-1", "paris")[0]


def test_accounts_do_not_show_passwords() -> None:
    assert "canary" not in repr(auth.Accounts("example.test", {"juliet": "canary"}))


@pytest.mark.parametrize("count", ["1000001", "4294967295", "9" * 20])
def test_a_server_may_not_have_us_count_for_hours(count: str) -> None:
    client = auth.ClientScram("SCRAM-SHA-1", "juliet", "one")
    nonce = client.first().partition(b"r=")[2].decode()
    with pytest.raises(auth.SaslRefused) as caught:
        client.respond(f"r={nonce}x,s=c2FsdA==,i={count}".encode())
    assert caught.value.condition == "too-many-iterations"
