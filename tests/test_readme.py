"""What README shows is real."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import click
from jsonschema import Draft202012Validator

from tests.support.pages import blocks
from xproxy.cli.main import COMMANDS, cli
from xproxy.cli.run import run
from xproxy.config.load import load, section_fields, section_types
from xproxy.config.options import OPTIONS
from xproxy.record.schema import event_schema

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()


def readme_flags() -> dict[str, set[str]]:
    """Return, for each command README shows, the options it is shown with; "" for options named in prose."""
    text = TEXT.replace("\\\n", " ")
    shown: dict[str, set[str]] = {"": set(re.findall(r"`(--?[a-z][a-z-]*)", text))}
    for line in re.findall(rf"xproxy ((?:{'|'.join(COMMANDS)})\b(?!\.)[^`#|;&\]\n]*)", text):
        words = line.split()
        command = words[0]
        shown.setdefault(command, set()).update(word for word in words if re.fullmatch(r"--?[a-z][a-z-]*", word))
        if isinstance(command_of(command), click.Group) and len(words) > 1 and words[1].isalpha():
            shown[command].add(words[1])
    return shown


def command_of(name: str) -> click.Command | None:
    """Return the command called ``name``."""
    with click.Context(cli) as context:
        return cli.get_command(context, name)


def known_flags(command: Any) -> set[str]:
    """Return the options of ``command`` and, for a group, of its commands and their names."""
    known = {flag for parameter in command.params if isinstance(parameter, click.Option) for flag in parameter.opts}
    if isinstance(command, click.Group):
        with click.Context(command) as context:
            for name in command.list_commands(context):
                known |= {name} | known_flags(command.get_command(context, name))
    return known


def test_every_command_and_flag_in_readme_is_real() -> None:
    shown = readme_flags()
    in_prose = shown.pop("")
    assert {"run", "log", "certs", "config", "events", "demo"} <= shown.keys()
    everywhere = known_flags(cli) | {"--help"}  # which click adds to each
    of_scripts = {"--install", "--long", "--quick", "--rounds"}  # tests/run.sh, bench/
    of_pytest = set(re.findall(r"\"(--xmpp-[a-z-]+)\"", (ROOT / "xproxy" / "pytest_plugin.py").read_text()))
    assert in_prose - everywhere - of_scripts - of_pytest == set()
    with click.Context(cli) as context:
        for name, flags in shown.items():
            assert flags - known_flags(cli.get_command(context, name)) - of_scripts == set(), name


def test_readme_names_every_option_of_run() -> None:
    assert [option.flag for option in OPTIONS if option.flag not in TEXT] == []


def test_the_record_is_one() -> None:
    (record,) = (json.loads(block) for block in re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL))
    assert list(Draft202012Validator(event_schema()).iter_errors(record)) == []


def test_every_key_is_a_key_and_has_its_default() -> None:
    """Rows such as ``| `[stream] depth_max` | 200 elements | ...``."""
    rows = re.findall(r"^\| `\[(\w+)\] (\w+)` \| ([\d ]+)(KiB|MiB)?", TEXT, re.MULTILINE)
    assert len(rows) >= 6
    for section, key, default, unit in rows:
        number = int(default.replace(" ", "")) * {"": 1, "KiB": 1_024, "MiB": 1_048_576}[unit]
        assert section_fields(section_types()[section])[key].default == number, key
    for section, key in re.findall(r"`\[(\w+)\] (\w+)`", TEXT):
        assert key in section_fields(section_types()[section])


def test_the_contents_name_every_section_in_its_order_and_some_pages() -> None:
    """Links as GitHub and Forgejo make them of a heading: lower case, words joined by hyphens, no punctuation."""
    text = re.sub(r"^ *```.*?^ *```$", "", TEXT, flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^(##|###) (.+)$", text.partition("\n## Changes")[0] + "\n## Changes\n", re.MULTILINE)
    contents = text.partition("**Contents**")[2].partition("\n## ")[0]
    entries = re.findall(r"^( *)\* \[(.+)\]\((.+)\)$", contents, re.MULTILINE)
    assert entries == [
        (indent, title, link)
        for level, title in headings
        for indent, link in [("  " * (len(level) - 2), link_of(title))]
        if level == "##" or (indent, title, link) in entries
    ]


def test_every_link_within_readme_leads_to_a_heading() -> None:
    text = re.sub(r"^ *```.*?^ *```$", "", TEXT, flags=re.DOTALL | re.MULTILINE)
    targets = {link_of(title) for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}
    links = set(re.findall(r"\]\((#[^)]+)\)", text))
    assert len(links) > 20
    assert links - targets == set()


def link_of(title: str) -> str:
    """Return the link to a heading."""
    return "#" + re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def test_every_place_in_the_house_is_there() -> None:
    places = re.findall(r"`((?:xproxy|tests|certs)/[\w/.]*)`", TEXT)
    assert len(places) > 10
    assert [place for place in places if not (ROOT / place).exists()] == []


def test_each_way_out_is_one(tmp_path: Path) -> None:
    """The files load and the commands are taken as they stand."""
    file = tmp_path / "xproxy.toml"
    seen = 0
    for block in blocks("Ways out"):
        if block.language == "toml":
            file.write_text(block.text)
            assert load({}, {}, config_file=file, need_upstream=True).settings.upstream.address is not None
            seen += 1
        for command in block.commands if block.language == "sh" else ():
            words = shlex.split(command)
            assert words[:2] == ["xproxy", "run"]
            with run.make_context("run", words[2:]) as context:
                context.params.pop("ready_file")
                config_file = context.params.pop("config_file")
                load(context.params, {}, config_file=config_file, search=(), need_upstream=True)
            seen += 1
    assert seen == 5
