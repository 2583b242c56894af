from pathlib import Path

from click.testing import CliRunner

from xproxy.cli.main import cli
from xproxy.config.load import load
from xproxy.config.settings import Settings


def test_the_printed_example_is_a_configuration_file(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["config", "example"])
    assert result.exit_code == 0
    path = tmp_path / "xproxy.toml"
    path.write_text(result.output)
    assert load({}, {}, config_file=path).settings == Settings()
