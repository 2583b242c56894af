from pathlib import Path

import pytest

from xproxy.config.toml import find_lines, read_toml
from xproxy.errors import ConfigProblems, FileProblem


def test_every_key_is_found_at_its_line() -> None:
    text = "\n".join(
        [
            "top = 1",
            "",
            "[stream] # limits",
            "depth_max = 9",
            '"quoted key" = 1',
            "log.level = 'x'",
            "text = '''",
            "depth_max = 8",
            "[not.a.header]",
            "'''",
            'list = ["""one""",',
            "]",
            "  [ a . 'b' ]",
            "c.d=2",
        ]
    )
    assert find_lines(text) == {
        ("top",): 1,
        ("stream",): 3,
        ("stream", "depth_max"): 4,
        ("stream", "quoted key"): 5,
        ("stream", "log"): 6,
        ("stream", "log", "level"): 6,
        ("stream", "text"): 7,
        ("stream", "list"): 11,
        ("a", "b"): 13,
        ("a", "b", "c"): 14,
        ("a", "b", "c", "d"): 14,
    }


def test_a_key_in_an_inline_table_is_placed_at_the_table(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text("\nstream = { depth_max = 1 }\n")
    toml = read_toml(path)
    assert toml.place("stream", "depth_max") == f"{path}:2"
    assert toml.place("nowhere") == str(path)


@pytest.mark.parametrize(
    ("data", "where"),
    [
        (b"[listen]\naddresses = 127.0.0.1:5222\n", ":2:"),
        (b"[listen]\naddresses = [\n", ":2: "),
        (b"[listen\n", ":1:"),
        (b"a = 1\nb = '\xff'\n", ":2: not UTF-8"),
    ],
)
def test_what_is_not_toml_is_named_by_line(tmp_path: Path, data: bytes, where: str) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(data)
    with pytest.raises(ConfigProblems) as caught:
        read_toml(path)
    assert f"{path}{where}" in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileProblem, match="No such file") as caught:
        read_toml(tmp_path / "none.toml")
    assert caught.value.path == tmp_path / "none.toml"


def test_a_byte_order_mark_is_no_problem(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(b"\xef\xbb\xbfa = 1\n")
    assert read_toml(path).values == {"a": 1}
