"""README's page on certificates and trust, executed as it is written."""

import json
from pathlib import Path

import pytest

from tests.support.pages import Stage, blocks, rows
from xproxy.config.load import load
from xproxy.tls.trust import SYSTEMS


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(root=tmp_path, ports={}, ca_file=tmp_path / "nobody")


@pytest.mark.slow
def test_the_commands_are_as_written(stage: Stage) -> None:
    printed = [
        stage.run(command)
        for block in blocks("Certificates and trust")
        if block.language == "sh"
        for command in block.commands
    ]
    made, shown, debian, java = printed
    assert "It may sign for: example.org, and what is below" in made
    assert 'tls_server_end_point_hash = "' in shown
    assert "update-ca-certificates" in debian
    assert json.loads(java)["system"] == "java"
    assert {path.name for path in (stage.root / "trust").iterdir()} == {"xproxy-ca.crt", "xproxy-ca.pem"}


def test_the_configuration_is_as_written(tmp_path: Path) -> None:
    (block,) = (block for block in blocks("Clients that refuse our certificate") if block.language == "toml")
    (tmp_path / "xproxy.toml").write_text(block.text)
    policy = load({}, {}, config_file=tmp_path / "xproxy.toml").settings.policy
    assert policy.on_client_reject == "passthrough"


def test_every_kind_of_client_stands_in_the_table() -> None:
    named = {name.strip("` ") for row in rows("Certificates and trust") for name in row[0].split(",")}
    assert named == set(SYSTEMS)
