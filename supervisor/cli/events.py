"""``supervisor events``: show past events of a switch, and follow new ones."""

import json
import sys
import time
from typing import Any, TextIO, cast

import click

from supervisor.cli.options import SpanType, directory, runtime_dir_option
from supervisor.screen.visible import visible

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
    """Show what happened to VMs, leases, settings and the gateway.

    An event is a VM that came, went, stalled or sent forged frames, a lease, a change of settings and so on.
    The last 1,000 are kept, and outlive the supervisor. `supervisor run --log-format json` logs the same
    records. `supervisor help EVENT` explains one.
    """
    from supervisor.console.client import Client  # noqa: PLC0415 - a page of help needs no zmq

    after, printer = 0, _Printer(sys.stdout)
    try:
        with Client(directory(runtime_dir)) as client:
            while True:
                answer = cast(dict[str, Any], client.ask("events", after=after, since=since))
                after, since = answer["next"], None  # later events are not older
                for event in answer["events"]:
                    if as_json:
                        click.echo(json.dumps(event))
                    else:
                        printer.show(event)
                if answer["events"]:
                    continue
                if not follow:
                    return
                time.sleep(FOLLOW_S)
    except KeyboardInterrupt:
        return


class _Printer:
    """Prints events for a person, a line each; a terminal gets the date once a day, and folded lines."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._day = ""

    def show(self, event: dict[str, Any]) -> None:
        day, clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event["time"])).split()
        head = f"{clock}  {event['event']:<14}  "
        if not self._stream.isatty():
            click.echo(f"{day} {head}{_text(event)}")
            return
        if day != self._day:
            click.echo(day)
            self._day = day
        from supervisor.screen.folding import folded  # noqa: PLC0415 - a page of help needs no rich

        click.echo(folded(head + _text(event), self._stream, len(head)))


def _text(event: dict[str, Any]) -> str:
    """Return the sentence of an event, whatever a worker has put into it."""
    text = event["message"]
    if "more" in event and f"{event['more']} more" not in text:
        text += f" ({event['more']} more like it)"
    return visible(text)
