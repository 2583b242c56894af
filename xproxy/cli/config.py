"""``xproxy config``."""

import click


@click.group()
def config() -> None:
    """Look at the configuration."""


@config.command(short_help="Print every key with its default, unit and reason, as TOML.")
def example() -> None:
    """Print every key with its default, unit and reason, as a TOML file that can be used as it is.

    \b
    xproxy config example > xproxy.toml
    """
    from xproxy.config.example import render_example

    click.echo(render_example(), nl=False)
