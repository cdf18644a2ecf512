"""``supervisor events``: show past events of a switch, and follow new ones."""

import json
import time
from typing import Any, cast

import click

from supervisor.cli.options import SpanType, directory, runtime_dir_option

FOLLOW_S = 0.25
"""Time between two questions while following; the switch answers in less than a millisecond."""


@click.command()
@runtime_dir_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@click.option(
    "--since",
    type=SpanType(may_be_zero=True),
    metavar="TIME",
    help="Show only events that are not older than this, like 90s, 10m or 1h; 0: only new ones.",
)
@click.option("--follow", is_flag=True, help="Go on with new events until Ctrl-C.")
def events(runtime_dir: str | None, as_json: bool, since: float | None, follow: bool) -> None:
    """Show events: VMs that came, went, stalled or sent forged frames; leases; settings; the gateway.

    The last 1,000 are kept, and outlive the supervisor. `supervisor run --log-format json` logs the same
    records. `supervisor help EVENT` explains one.
    """
    from supervisor.console.client import Client  # noqa: PLC0415 - a page of help needs no zmq

    after = 0
    try:
        with Client(directory(runtime_dir)) as client:
            while True:
                answer = cast(dict[str, Any], client.ask("events", after=after, since=since))
                after, since = answer["next"], None  # later events are not older
                for event in answer["events"]:
                    click.echo(json.dumps(event) if as_json else _line(event))
                if answer["events"]:
                    continue
                if not follow:
                    return
                time.sleep(FOLLOW_S)
    except KeyboardInterrupt:
        return


def _line(event: dict[str, Any]) -> str:
    """Return an event as one line for a person, whatever a worker has put into it."""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event["time"]))
    text = f"{when}  {event['event']:<14}  {event['message']}"
    if "more" in event and " more like it" not in text:
        text += f" ({event['more']} more like it)"
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
