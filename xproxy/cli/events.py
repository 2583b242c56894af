"""``xproxy events``: the catalogue of what the log can say."""

from typing import Any, Final

import click
from rich import box
from rich.table import Table
from rich.text import Text

from xproxy.cli.output import make_console, print_json
from xproxy.events import EVENT_TYPES, Event, Level
from xproxy.events.delegates import METHODS, Method, Observable
from xproxy.record.ecs import SHAPES, group_of, level_name
from xproxy.record.fields import FIELDS
from xproxy.record.schema import event_schema, meaning_of

LEVEL_STYLES: Final = {
    Level.DEBUG: "dim",
    Level.INFO: "green",
    Level.WARNING: "yellow",
    Level.ERROR: "red",
    Level.CRITICAL: "bold red",
}


@click.command()
@click.option("--schema", "what", flag_value="schema", help="Print the JSON Schema of a record.")
@click.option("--fields", "what", flag_value="fields", help="List every field a record can have.")
@click.option("--delegates", "what", flag_value="delegates", help="List what the log shows of each XMPPStreamDelegate "
              "method of XMPPFramework.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
def events(what: str | None, as_json: bool) -> None:
    """List the events xproxy logs: action, level and meaning."""
    if what == "schema":
        print_json(event_schema())
    elif what == "fields":
        if as_json:
            print_json(_fields())
        else:
            make_console().print(_field_table())
    elif what == "delegates":
        if as_json:
            print_json([_delegate(method) for method in METHODS])
        else:
            make_console().print(_delegate_table())
    elif as_json:
        print_json([_action(event_type) for event_type in EVENT_TYPES])
    else:
        make_console().print(_table())


def _action(event_type: type[Event]) -> dict[str, Any]:
    shape = SHAPES[event_type]
    return {
        "action": event_type.action,
        "group": group_of(event_type),
        "level": level_name(event_type.level),
        "message": event_type.message,
        "meaning": meaning_of(event_type),
        "category": shape.category,
        "type": shape.type,
        "outcome": shape.outcomes,
        "scope": shape.scope.value,
        "required": shape.required,
    }


def _table() -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("action", no_wrap=True)
    table.add_column("level", no_wrap=True)
    table.add_column("meaning")
    group = None
    for event_type in EVENT_TYPES:
        if group not in {None, group_of(event_type)}:
            table.add_section()
        group = group_of(event_type)
        style = LEVEL_STYLES[event_type.level]
        # Text, not str: nothing of ours is to be read as markup.
        table.add_row(
            Text(event_type.action, style=style),
            Text(level_name(event_type.level), style=style),
            Text(meaning_of(event_type)),
        )
    return table


def _fields() -> list[dict[str, Any]]:
    return [
        {
            "field": field.name,
            "type": field.type.value,
            "array": field.array,
            "bytes_max": field.max_bytes if field.type.value in {"keyword", "match_only_text"} else None,
            "ecs": not field.is_custom,
            "meaning": field.meaning or None,
        }
        for field in FIELDS.values()
    ]


def _field_table() -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("field", no_wrap=True)
    table.add_column("type", no_wrap=True)
    table.add_column("meaning")
    for field in FIELDS.values():
        table.add_row(
            Text(field.name, style="" if field.is_custom else "cyan"),
            Text(field.type.value + (" []" if field.array else "")),
            Text(field.meaning) if field.meaning or field.is_custom else Text("as ECS defines it", style="dim"),
        )
    return table


OBSERVABLE_STYLES: Final = {Observable.YES: "green", Observable.PARTLY: "yellow", Observable.NO: "dim"}


def _delegate(method: Method) -> dict[str, Any]:
    return {
        "number": method.number,
        "selector": method.selector,
        "observable": method.observable.value,
        "actions": method.actions,
        "where": method.where or None,
    }


def _delegate_table() -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("XMPPStreamDelegate", overflow="fold")
    table.add_column("seen", no_wrap=True)
    table.add_column("actions", overflow="fold")
    table.add_column("where, or the nearest evidence")
    for method in METHODS:
        seen = method.observable is not Observable.NO
        actions = " ".join(method.actions)
        table.add_row(
            Text(method.selector),
            Text(method.observable.value, style=OBSERVABLE_STYLES[method.observable]),
            Text(actions if seen else f"({actions})" if actions else "", style="" if seen else "dim"),
            Text(method.where),
        )
    return table
