"""Three layers, one pass."""

from pathlib import Path

import pytest

from xproxy.config.address import HostPort
from xproxy.config.listen import ListenAddress
from xproxy.config.load import Loaded, load, section_fields
from xproxy.config.settings import Settings
from xproxy.config.upstream import UpstreamAddress, UpstreamFrom, UpstreamSettings
from xproxy.errors import ConfigProblems, FileProblem


def load_text(tmp_path: Path, text: str, **options: object) -> Loaded:
    path = tmp_path / "xproxy.toml"
    path.write_text(text)
    return load(options, {}, config_file=path)


def problems_of(tmp_path: Path, text: str, **options: object) -> list[str]:
    """Return the problems, one a line, the file's path cut to ``FILE``."""
    with pytest.raises(ConfigProblems) as caught:
        load_text(tmp_path, text, **options)
    assert caught.value.exit_code == 2
    return str(caught.value).replace(str(tmp_path / "xproxy.toml"), "FILE").splitlines()


def test_nothing_given_is_all_defaults() -> None:
    loaded = load({}, {}, search=())
    assert loaded.settings == Settings()
    assert loaded.file is None


def test_command_line_beats_environment_beats_file(tmp_path: Path) -> None:
    path = tmp_path / "xproxy.toml"
    path.write_text('[log]\nlevel = "error"\nformat = "json"\n[upstream]\ndomain = "file.example"\n')
    environment = {"XPROXY_LOG_LEVEL": "warning", "XPROXY_LOG_FORMAT": "human", "XPROXY_DOMAIN": ""}
    settings = load({"log_level": "debug", "log_format": None}, environment, config_file=path).settings
    assert settings.log.level == "debug"
    assert settings.log.format == "human"
    assert settings.upstream.domain == "file.example"


def test_lists_come_from_every_layer(tmp_path: Path) -> None:
    several = (ListenAddress("127.0.0.1", 5222), ListenAddress("::1", 5223))
    text = '[listen]\naddresses = ["127.0.0.1:5222", "[::1]:5223"]\n'
    assert load_text(tmp_path, text).settings.listen.addresses == several
    environment = {"XPROXY_LISTEN": "127.0.0.1:5222, [::1]:5223"}
    assert load({}, environment, search=()).settings.listen.addresses == several
    options = {"listen": ("127.0.0.1:5222", "[::1]:5223")}
    assert load(options, {}, search=()).settings.listen.addresses == several
    assert load({"listen": ()}, environment, search=()).settings.listen.addresses == several


def test_a_single_address_needs_no_list(tmp_path: Path) -> None:
    assert load_text(tmp_path, "[listen]\naddresses = '[::1]:0'\n").settings.listen.addresses == (
        ListenAddress("::1", 0),
    )


def test_a_dash_takes_the_files_value_back(tmp_path: Path) -> None:
    text = "[log]\npath = 'records.jsonl'\n"
    assert load_text(tmp_path, text).settings.log.path == tmp_path / "records.jsonl"
    assert load_text(tmp_path, text, log="-").settings.log.path is None


def test_relative_paths_count_from_the_file_or_from_here(tmp_path: Path) -> None:
    settings = load_text(tmp_path, "[tls]\ncertificate_file = 'c.pem'\n", key="k.pem").settings
    assert settings.tls.certificate_file == tmp_path / "c.pem"
    assert settings.tls.key_file == Path("k.pem")


def test_the_first_file_found_is_read(tmp_path: Path) -> None:
    second = tmp_path / "second.toml"
    second.write_text("[log]\nlevel = 'debug'\n")
    assert load({}, {}, search=(tmp_path / "first.toml", second)).file == second
    named = tmp_path / "named.toml"
    named.write_text("")
    assert load({}, {"XPROXY_CONFIG": str(named)}, search=(second,)).file == named


def test_a_file_that_was_named_must_exist(tmp_path: Path) -> None:
    with pytest.raises(FileProblem, match=r"none\.toml"):
        load({}, {}, config_file=tmp_path / "none.toml")


def test_a_file_that_is_there_and_unreadable_is_not_passed_over(tmp_path: Path) -> None:
    with pytest.raises(FileProblem, match="Is a directory"):
        load({}, {}, search=(tmp_path,))


def test_all_problems_are_shown_at_once_with_lines(tmp_path: Path) -> None:
    text = """\
[upstrem]
address = "a:1"

[stream]
depth_max = "deep"
stanza_bytes_max = -1
stanza_byte_warn = 3

[log]
level = "chatty"
server_text = 1
domain = "x"

[listen]
addresses = ["::1:5222", "nowhere"]
"""
    assert problems_of(tmp_path, text, upstream_verify="maybe") == [
        "FILE:1: unknown section or key 'upstrem': did you mean 'upstream'?",
        "FILE:7: unknown key 'stanza_byte_warn' in [stream]: did you mean 'stanza_bytes_warn'?",
        "FILE:12: unknown key 'domain' in [log]: it belongs into [upstream]",
        "FILE:5: depth_max: must be a whole number, not 'deep'",
        "FILE:6: stanza_bytes_max: must be at least 1, not -1",
        "FILE:10: level: must be debug, info, warning, error or critical, not 'chatty'",
        "FILE:11: server_text: must be true or false, not 1",
        "FILE:15: addresses: '::1:5222' is ambiguous: write an IPv6 address in brackets, such as [::1]:5222; "
        "'nowhere' has no port: write nowhere:5222",
        "--upstream-verify: must be full or none, not 'maybe'",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("upstream = 'a:1'", "FILE:1: upstream is a section, not a key: write [upstream] on a line of its own"),
        ("address = 'a:1'", "FILE:1: unknown section or key 'address': it belongs into [upstream]"),
        ("[log]\nzzz = 1", "FILE:2: unknown key 'zzz' in [log]: known here: path, format"),
        ("[stream]\ndepth_max = true", "FILE:2: depth_max: must be a whole number, not true"),
        ("[stream]\nnames_before_login_max = 3", "FILE:2: names_before_login_max: must be >= 8, not 3"),
        ("[stream]\ndepth_max = 255", "FILE:2: 255 is out of range: at most 250"),
        ("[stream]\nstanza_bytes_max = 1000", "stanza_bytes_warn in [stream]: 262144 is above stanza_bytes_max (1000)"),
        ("[stream]\nnames_max = 10", "names_before_login_max in [stream]: 64 is above names_max (10)"),
        ("[upstream]\naddress = 'a:0'", "FILE:2: a:0 has port 0, which no server listens on: write a:5222"),
        ("[upstream]\naddress = '127.0.0.1:5222'", "FILE:2: 127.0.0.1:5222 is also listened on"),
        ("[upstream]\ndomain = 'u@example.org'", "FILE:2: 'u@example.org' is no XMPP domain: write the part"),
        ("[upstream]\ndomain = 'a..b'", "FILE:2: 'a..b' is no XMPP domain"),
        (f"[upstream]\ndomain = '{'x' * 64}.org'", "FILE:2: 'xxx"),
        (
            "[upstream]\naddress = 'srv'",
            "FILE:2: srv without a domain: clients must not choose any server in the world",
        ),
        ("[upstream]\naddress = 'SRV'\ndomains = ['a..b', '*']", "FILE:3: 'a..b' is no XMPP domain"),
        ("[upstream]\nnameservers = ['ns.example:53']", "FILE:2: nameservers: 'ns.example:53' is no address of a name"),
        ("[upstream]\nnameservers = ['127.0.0.1:0']", "FILE:2: nameservers: '127.0.0.1:0' is no address of a name"),
        (
            "[upstream]\nnameservers = ['ns.example']",
            "FILE:2: nameservers: 'ns.example' is no address of a name server",
        ),
        ("[upstream]\ntls = 'none'", "FILE:2: without TLS no server says which names it has"),
        ("[upstream]\ntls = 'clear'", "FILE:2: tls: must be same, starttls, direct or none, not 'clear'"),
        (
            "[upstream]\naddress = 'original'\nrefuse_while_down = true",
            "FILE:3: there is more than one server, and the others may be up",
        ),
        (
            "[upstream]\naddress = 'srv'\ndomain = 'a'\ndomains = ['b']\nrefuse_while_down = true",
            "FILE:5: there is more than one server, and the others may be up",
        ),
        ("[upstream]\nprobe_seconds_min = 40", "FILE:2: 40.0 is above probe_seconds_max (30.0)"),
        ("[upstream]\ndomain = ''", "FILE:2: domain: must not be empty"),
        ('[upstream]\nca_file = "a\\u0000b"', "FILE:2: ca_file: must not hold control characters"),
        ("[tls]\nkey_file = 'k'", "FILE:2: a key without its certificate: add --cert FILE (certificate_file in [tls])"),
        ("[listen]\naddresses = []", "FILE:2: addresses: must be a list with at least one entry, not an empty list"),
        ("[listen]\naddresses = ['a:1', 'a:1']", "FILE:2: a:1 is listed twice"),
        ("[listen]\naddresses = [1]", "FILE:2: addresses: must be text in quotes, not 1"),
    ],
)
def test_each_problem_says_where_what_and_what_to_write(tmp_path: Path, text: str, problem: str) -> None:
    (found,) = problems_of(tmp_path, text)
    assert found.startswith(problem)


def test_a_certificate_on_the_command_line_asks_for_its_key(tmp_path: Path) -> None:
    (found,) = problems_of(tmp_path, "", cert="c.pem")
    assert found.startswith("--cert: a certificate without its key: add --key FILE")


def test_a_refused_value_causes_no_second_complaint(tmp_path: Path) -> None:
    (found,) = problems_of(tmp_path, "[stream]\nstanza_bytes_max = 'x'\nstanza_bytes_warn = 2_000_000\n")
    assert "stanza_bytes_max" in found


def test_a_refused_value_hides_nothing_that_does_not_depend_on_it(tmp_path: Path) -> None:
    text = """\
[listen]
addresses = ["a:1", "a:1"]
trusted = ["x"]
destination_ports = [0]
[upstream]
address = "srv"
tls = "clear"
domains = ["a..b"]
probe_seconds_min = 40
refuse_while_down = true
[policy]
passthrough_seconds = 0.5
passthrough_max = "x"
on_client_reject = "passthrough"
[capture]
actions = 1
jid = "x"
net = "y"
directory = "captures"
[log]
identities = "x"
"""
    found = [problem.partition(": ")[0] for problem in problems_of(tmp_path, text)]
    refused = [3, 7, 13, 16, 21]
    assert found == [f"FILE:{line}" for line in (*refused, 2, 4, 8, 10, 9, 12, 17, 18)]


@pytest.mark.parametrize("key", section_fields(UpstreamSettings))
def test_no_check_sees_a_default_in_the_place_of_a_refused_value(tmp_path: Path, key: str) -> None:
    """Whatever is refused in a configuration that is fine, that is the one problem."""
    lines = {"address": "'srv'", "domain": "'a.example'", "tls": "'none'", "refuse_while_down": "true", key: "{}"}
    text = "[upstream]\n" + "".join(f"{name} = {value}\n" for name, value in lines.items())
    (found,) = problems_of(tmp_path, text)
    assert f": {key}: " in found


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        (
            "address = 'a:5222'\ndomains = ['a.example']",
            "FILE:3: restricts nothing with address = a:5222: every client",
        ),
        ("address = 'original'\ndomains = ['*']", "FILE:3: restricts nothing with address = original: every client is"),
        ("address = 'a:5222'\nnameservers = ['192.0.2.1']", "FILE:3: nobody asks them with address = a:5222"),
        (
            "address = 'srv'\ndomain = 'a.example'\nprivate_addresses = true",
            "FILE:4: does nothing: servers of domains that are listed may have any address: leave it away; it is for",
        ),
    ],
)
def test_what_does_less_than_it_says_is_said(tmp_path: Path, text: str, advice: str) -> None:
    (found,) = load_text(tmp_path, f"[upstream]\n{text}\n").advice
    assert str(found).replace(str(tmp_path / "xproxy.toml"), "FILE").startswith(advice)


def test_there_is_no_advice_on_what_does_what_it_says(tmp_path: Path) -> None:
    text = "[upstream]\naddress = 'srv'\ndomains = ['*']\nprivate_addresses = true\nnameservers = ['192.0.2.1']\n"
    assert load_text(tmp_path, text).advice == ()


def test_a_slip_in_a_variables_name_is_noticed() -> None:
    with pytest.raises(ConfigProblems, match="did you mean XPROXY_UPSTREAM"):
        load({}, {"XPROXY_UPSTREM": "a:1", "XPROXY_SOMETHING_ELSE": "fine", "UPSTREM": "fine"}, search=())


def test_a_bad_value_from_the_environment_is_placed_there() -> None:
    with pytest.raises(ConfigProblems, match="environment variable XPROXY_UPSTREAM: 'a' has no port"):
        load({}, {"XPROXY_UPSTREAM": "a"}, search=())


@pytest.mark.parametrize("domain", ["example.org", "b\u00fccher.example", "localhost", "192.0.2.1", "example.org."])
def test_a_domain_may_be_a_name_or_an_address(domain: str) -> None:
    assert load({"domain": domain}, {}, search=()).settings.upstream.domain == domain


def test_credentials_of_systemd_count_where_nothing_else_names_a_file(tmp_path: Path) -> None:
    for name in ("cert.pem", "key.pem", "upstream-ca.pem"):
        (tmp_path / name).write_text("")
    handed_over = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    settings = load({}, handed_over, search=()).settings
    assert settings.tls.certificate_file == tmp_path / "cert.pem"
    assert settings.tls.key_file == tmp_path / "key.pem"
    assert settings.upstream.ca_file == tmp_path / "upstream-ca.pem"
    mine = load({"cert": "a.pem"}, {**handed_over, "XPROXY_KEY": "b.key"}, search=()).settings
    assert (mine.tls.certificate_file, mine.tls.key_file) == (Path("a.pem"), Path("b.key"))
    (tmp_path / "cert.pem").unlink()
    with pytest.raises(ConfigProblems, match=r"credential key\.pem: a key without its certificate"):
        load({}, handed_over, search=())


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("srv", UpstreamFrom.SRV),
        ("Original", UpstreamFrom.ORIGINAL),
        ("xmpp.example.org:5222", HostPort("xmpp.example.org", 5222)),
        ("srv:5222", HostPort("srv", 5222)),
    ],
)
def test_what_upstream_may_be(text: str, want: UpstreamAddress) -> None:
    settings = load({"upstream": text, "domain": "example.org"}, {}, search=()).settings
    assert settings.upstream.address == want


@pytest.mark.parametrize(
    "text",
    [
        "address = 'srv'\ndomain = 'a.example'\nrefuse_while_down = true",
        "address = 'srv'\ndomains = ['*']",
        "address = '127.0.0.1:5222'\ntls = 'none'\ndomain = 'a.example'",
        "address = 'a:5222'\nrefuse_while_down = true",
    ],
)
def test_ways_out_that_are_fine(tmp_path: Path, text: str) -> None:
    file = tmp_path / "xproxy.toml"
    file.write_text(f"[listen]\naddresses = ['127.0.0.1:0']\n[upstream]\n{text}\n")
    assert load({}, {}, config_file=file, need_upstream=True)
