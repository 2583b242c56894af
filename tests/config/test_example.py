import re
from pathlib import Path

from xproxy.config.example import render_example
from xproxy.config.load import load, section_fields, section_types
from xproxy.config.settings import Settings


def test_the_example_loaded_back_is_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "xproxy.toml"
    path.write_text(render_example())
    assert load({}, {}, config_file=path).settings == Settings()


def test_the_keys_that_are_commented_out_load_too(tmp_path: Path) -> None:
    path = tmp_path / "xproxy.toml"
    path.write_text(re.sub(r"^# (\w+ = )", r"\1", render_example(), flags=re.MULTILINE))
    settings = load({}, {}, config_file=path).settings
    assert str(settings.upstream.address) == "xmpp.example.org:5222"
    assert settings.state.directory == Path("/var/lib/xproxy")


def test_every_key_has_unit_and_reason_and_stands_in_the_example() -> None:
    lines = render_example().splitlines()
    for section, type_ in section_types().items():
        assert f"[{section}]" in lines
        keys = section_fields(type_)
        assert keys, section
        for key, field in keys.items():
            assert field.metadata["unit"], key
            assert field.metadata["why"], key
            assert any(re.match(rf"(# )?{key} = .", line) for line in lines), key
