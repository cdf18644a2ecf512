"""Commands for a running switch: ask, show, change, stop."""

import json
import os
import select
import time
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import click

from forwarder.errors import LocalError
from supervisor.attach.addresses import LISTEN_FLAGS, Attachment, Tap, parse_any
from supervisor.cli.grouped import GroupedCommand, option
from supervisor.cli.options import (
    PORT,
    ChangeType,
    SecondsType,
    SettingsCommand,
    SpanType,
    attachment_options,
    directory,
    given_attachments,
    given_settings,
    runtime_dir_option,
    settings_options,
)
from supervisor.ports.settings import shown

Json = dict[str, Any]

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def _ask(runtime_dir: str | None, name: str, /, **arguments: object) -> Json:
    from supervisor.console.client import Client  # noqa: PLC0415 - a page of help needs no zmq

    with Client(directory(runtime_dir)) as client:
        return cast(Json, client.ask(name, **arguments))


all_option = click.option(
    "--all", "everything", is_flag=True, help="Also show zeros, and figures for bug reports."
)


def _show(answer: Any, as_json: bool, draw: Callable[[Any, int], object]) -> None:
    if as_json:
        click.echo(json.dumps(answer))
    else:
        from supervisor.screen.tables import console_for, room  # noqa: PLC0415

        console = console_for()
        console.print(draw(answer, room(console)))


WORDS_HELP = "`supervisor help WORD` explains a word."
UNCONFIRMED = "its worker has not confirmed that yet; it may be stopped or stuck"
UNMOVED = (
    "ports that are out of reach now may hear its floods for up to 10 s more; then its worker is replaced"
)


@click.command(epilog=WORDS_HELP)
@runtime_dir_option
@json_option
@all_option
def status(runtime_dir: str | None, as_json: bool, everything: bool) -> None:
    """Show problems, the ports with their addresses, and the listeners."""
    from supervisor.screen.status import status as draw  # noqa: PLC0415

    _show(_ask(runtime_dir, "status"), as_json, partial(draw, everything=everything))


@click.command(epilog=WORDS_HELP)
@runtime_dir_option
@json_option
@all_option
@click.option("--watch", type=SecondsType(min=0.1), metavar="SECONDS", help="Repeat at this interval.")
@click.option(
    "--since",
    type=SpanType(),
    metavar="TIME",
    help="Only what was counted in the last 90s, 10m, or 1h at most.",
)
@click.option("--by-source", is_flag=True, help="With --json: also the source ports of lost frames.")
def stats(
    *,
    runtime_dir: str | None,
    as_json: bool,
    everything: bool,
    watch: float | None,
    since: float | None,
    by_source: bool,
) -> None:
    """Show counters: frames, bytes, drops by reason, processes.

    The history that `--since` reads outlives a supervisor that is killed. It has a value for each second of
    the last minute and for each minute of the last hour.
    """
    from supervisor.console.client import Client  # noqa: PLC0415
    from supervisor.screen.stats import stats as draw  # noqa: PLC0415

    with Client(directory(runtime_dir)) as client:
        try:
            while True:
                due = time.monotonic() + (watch or 0)
                answer = client.ask("stats", sources=by_source, since=since)
                _show(answer, as_json, partial(draw, everything=everything))
                if watch is None:
                    return
                time.sleep(max(0.0, due - time.monotonic()))
        except KeyboardInterrupt:
            return


@click.command()
@runtime_dir_option
def top(runtime_dir: str | None) -> None:
    """Watch rates, drops, queues, CPU and memory.

    `?` shows the keys, `q` ends it.
    """
    from supervisor.console.client import Client  # noqa: PLC0415
    from supervisor.console.live_stats import LiveStats  # noqa: PLC0415
    from supervisor.screen import top as live_table  # noqa: PLC0415

    with Client(directory(runtime_dir)) as client:

        def past(span: str, port: int | None) -> list[Json]:
            after, found = 0 if port is None else port - 1, list[Json]()
            while more := cast(Json, client.ask("history", after=after, span=span))["ports"]:
                if port is not None:
                    return [each for each in more if each["port"] == port]
                found += more
                after = more[-1]["port"]
            return found

        answers = LiveStats(client.ask)
        live_table.run(lambda: answers.fetch(time.monotonic()), past)


@click.command()
@runtime_dir_option
@json_option
def macs(runtime_dir: str | None, as_json: bool) -> None:
    """Show the MAC addresses of each port."""
    from supervisor.screen import tables  # noqa: PLC0415

    _show(_ask(runtime_dir, "macs"), as_json, tables.macs)


@click.command()
@runtime_dir_option
@json_option
def leases(runtime_dir: str | None, as_json: bool) -> None:
    """Show the gateway's leases: address, VM and name.

    The lease of a VM that has gone is kept for it, until another VM needs the address.
    """
    from supervisor.console.client import Client  # noqa: PLC0415
    from supervisor.console.in_parts import leases as all_leases  # noqa: PLC0415
    from supervisor.screen import tables  # noqa: PLC0415

    with Client(directory(runtime_dir)) as client:
        _show({"leases": all_leases(client.ask)}, as_json, tables.leases)


@click.command(cls=GroupedCommand)
@runtime_dir_option
@attachment_options
@option(PORT, "--name", help="Name of the port; further ones get -2, -3, …  [default: KIND-NUMBER]")
@settings_options
def attach(
    *,
    runtime_dir: str | None,
    name: str | None,
    **flags: Any,
) -> None:
    """Add listeners or TAP devices to a running switch.

    Their ports start with the settings given here. After a kill of the supervisor the next one attaches them
    again; a stop of the switch forgets them.
    """
    groups = given_attachments(flags)
    if not any(groups.values()):
        listen = ", ".join(f"--{flag}" for flag in LISTEN_FLAGS.values())
        raise click.UsageError(f"say what to attach: {listen} or --tap")
    for transport, attachments in groups.items():
        for attachment in attachments:
            answer = _ask(
                runtime_dir,
                "attach",
                transport=transport,
                url=_words(attachment),
                name=name,
                settings=given_settings(flags),
            )
            click.echo(f"attached {answer['url']}")
            if answer["next_name"] != name:
                click.echo(f"a port is named {name} already; the next one is {answer['next_name']}", err=True)
            _note_nameless(answer)


def _note_nameless(answer: Json) -> None:
    for name in answer["nameless"]:
        click.echo(f"reach: no port is named {name} yet", err=True)


def _words(attachment: Attachment) -> str:
    address = attachment.address
    return address.url.removeprefix("tap://") if isinstance(address, Tap) else address.url


@click.command()
@runtime_dir_option
@click.argument("target", metavar="PORT|NAME|URL|PATH")
def detach(runtime_dir: str | None, target: str) -> None:
    """Disconnect the VM of a port, or close a listener.

    A listener is named by its URL or path.
    """
    answer = _ask(runtime_dir, "detach", target=parse_any(target))
    click.echo(f"detached {answer.get('name', answer.get('url'))}")


@click.command()
@runtime_dir_option
@json_option
@click.argument("target", metavar="PORT|NAME|URL|PATH")
def show(runtime_dir: str | None, as_json: bool, target: str) -> None:
    """Show the settings of a port or of a listener.

    They have the form that `set` takes. Those of a listener are for VMs that attach from now on.
    """
    from supervisor.screen import tables  # noqa: PLC0415

    _show(
        _ask(runtime_dir, "show", target=parse_any(target)),
        as_json,
        lambda answer, _: tables.settings(answer),
    )


@click.command("set", cls=SettingsCommand)
@runtime_dir_option
@click.argument("target", metavar="PORT|NAME|URL|PATH")
@click.argument("changes", metavar="KEY=VALUE...", nargs=-1, required=True, type=ChangeType())
def set_(runtime_dir: str | None, target: str, changes: tuple[tuple[str, object], ...]) -> None:
    """Change settings of a port or of a listener.

    If one of them is refused, none is changed. Settings of a port hold until its VM goes. Settings of a
    listener, named by its URL or path, are for VMs that attach from now on. Lists are separated by commas;
    `pin=` makes one empty.
    """
    wanted = dict(changes)
    if len(wanted) < len(changes):
        raise click.UsageError("a setting is there twice; separate the items of a list by commas")
    answer = _ask(runtime_dir, "set", target=parse_any(target), settings=wanted)
    in_force = dict(shown(answer["settings"]))
    whose = answer["name"] if answer["port"] is not None else answer["url"]
    future = " for VMs that attach from now on" if answer["port"] is None else ""
    click.echo(" ".join([f"set {whose}", *(f"{key}={in_force[key]}" for key in wanted)]) + future)
    _note_nameless(answer)
    for whose, why in ((answer["unconfirmed"], UNCONFIRMED), (answer["unmoved"], UNMOVED)):
        if whose:
            click.echo(f"{', '.join(whose)}: {why}", err=True)


@click.command()
@runtime_dir_option
@click.option(
    "--timeout",
    type=SecondsType(min=0),
    default=15.0,
    show_default=True,
    metavar="SECONDS",
    help="Time to wait; if it has not ended by then, the command fails.",
)
def stop(runtime_dir: str | None, timeout: float) -> None:
    """Stop a switch and wait until it has ended."""
    pid = cast(int, _ask(runtime_dir, "stop")["pid"])
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if not select.select([process], [], [], timeout)[0]:
            raise LocalError(
                f"the supervisor (pid {pid}) has not ended within {timeout:g} s; it goes on trying"
            )
    finally:
        os.close(process)


@click.command()
@click.option(
    "--runtime-dir",
    metavar="DIR",
    help="Directory of the demonstration's switch.  [default: a temporary one]",
)
@click.option("--seconds", type=SecondsType(min=1), metavar="SECONDS", help="Duration of the demonstration.")
def demo(runtime_dir: str | None, seconds: float | None) -> None:
    """Show that a stuck VM does not slow others.

    It needs no VM and no root.
    """
    from supervisor.demo import course as demonstration  # noqa: PLC0415

    try:
        kept = demonstration.run(demonstration.SECONDS if seconds is None else seconds, runtime_dir)
    except KeyboardInterrupt:
        raise click.exceptions.Exit(1) from None
    if not kept:
        raise click.exceptions.Exit(1)
