"""``supervisor capture``: capture the frames of ports, as pcapng."""

import os
import signal
import sys
import time

import click

from forwarder.errors import LocalError
from supervisor.cli.options import SecondsType, directory, runtime_dir_option

SNAP = 65_535
NICE = 10
"""A tenth of a worker's or a VM's share, where all cores are busy: a capture loses frames, and no VM does."""


@click.command()
@runtime_dir_option
@click.argument("ports")
@click.option(
    "-w", "--write", "file", metavar="FILE", help="File to write; - is standard output, if not a terminal."
)
@click.option("--filter", "expression", metavar="EXPR", help="Capture only matching frames (pcap-filter(7)).")
@click.option(
    "--seconds",
    type=SecondsType(min=0.1),
    metavar="SECONDS",
    help="End after this time.  [default: at Ctrl-C]",
)
@click.option(
    "--snap",
    type=click.IntRange(14, SNAP),
    default=SNAP,
    show_default=True,
    metavar="BYTES",
    help="Most bytes to keep of a frame.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["pcapng", "pcap"]),
    default="pcapng",
    show_default=True,
    help="pcap has no ports and no dropped frames.",
)
def capture(
    *,
    runtime_dir: str | None,
    ports: str,
    file: str | None,
    expression: str | None,
    seconds: float | None,
    snap: int,
    form: str,
) -> None:
    """Capture the frames of PORTS.

    PORTS is a port's name or number, several with commas, or `all`.

    A frame appears once as it comes from a VM and once as it goes to a VM. A dropped frame appears once more,
    with the reason as comment. Live: `supervisor capture all -w - | wireshark -k -i -`. A slow reader misses
    captured frames, and the summary says how many; the switch loses no frame by it.
    """
    from supervisor.capture import pcap, pcapng  # noqa: PLC0415 - a page of help needs none of this
    from supervisor.capture.filters import compile_filter  # noqa: PLC0415
    from supervisor.capture.viewer import Viewer, open_output  # noqa: PLC0415

    if file is None and sys.stdout.isatty():
        raise click.UsageError("say where to write with -w FILE, or -w - for standard output")
    from forwarder.messages import WantCapture  # noqa: PLC0415
    from forwarder.version import VERSION  # noqa: PLC0415

    names = () if ports == "all" else tuple(ports.split(","))
    if not all(names):
        raise click.UsageError(f"a port's name is missing in {ports!r}; `supervisor status` lists the ports")
    wanted = WantCapture(names, compile_filter(expression) if expression else b"", snap)
    stopped: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: stopped.append(number))
    end = time.monotonic() + seconds if seconds is not None else float("inf")
    viewer = Viewer(directory(runtime_dir), wanted, pcap if form == "pcap" else pcapng)
    os.nice(NICE)
    try:
        output = open_output(file or "-")
        seen = viewer.run(output, f"bulkhead {VERSION}", lambda: bool(stopped) or time.monotonic() >= end)
    except BrokenPipeError:
        return  # the reading program has ended
    except OSError as error:
        raise LocalError(f"cannot write to {file}: {error.strerror}; what came before is there") from None
    finally:
        viewer.close()
    late = f"; {seen.lost} more came faster than they could be written" if seen.lost else ""
    click.echo(f"{seen.frames} frames of {seen.ports} ports{late}", err=True)
    if seen.broken:
        click.echo(f"{seen.broken} of them damaged their copies; later frames are missing", err=True)
    if seen.early:
        raise LocalError("the supervisor has ended, and the capture with it; capture again when it is back")
