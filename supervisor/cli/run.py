"""``supervisor run``: one switch in the foreground."""

import signal
import socket
from itertools import chain
from typing import Any

import click

from forwarder.errors import LocalError
from forwarder.process import limits
from forwarder.process.descriptors import grow_descriptor_table, raise_descriptor_limit
from supervisor.base import proc
from supervisor.base.logs import FORMATS, LEVELS
from supervisor.cli.grouped import GroupedCommand, option
from supervisor.cli.options import (
    LOG,
    SWITCH,
    attachment_options,
    directory,
    gateway_options,
    given_attachments,
    given_gateway,
    runtime_dir_option,
)
from supervisor.run_options import CELLS, RunOptions


@click.command(cls=GroupedCommand)
@runtime_dir_option
@option(SWITCH, "--config", metavar="FILE.toml", help="Read options from this file; flags are added to them.")
@option(SWITCH, "--name", help="Name of this switch, for `status`.  [default: bulkhead]")
@option(SWITCH, "--pid-file", metavar="PATH", help="Write the process id to this file while running.")
@option(SWITCH, "--pcap", metavar="FILE", help="Write what passes the gateway to this file, as gvproxy does.")
@option(
    SWITCH,
    "--notification",
    metavar="PATH|unix://PATH",
    help="Tell the program at this socket of VMs that come and go, as gvproxy does.",
)
@option(
    SWITCH,
    "--cell",
    type=click.Choice(CELLS),
    help="Confine workers as far as the kernel can (auto), or serve only if it can fully.  [default: auto]",
)
@option(SWITCH, "--check", is_flag=True, help="Show what a run would do, or its fault, and start nothing.")
@attachment_options
@gateway_options
@option(LOG, "--log-level", type=click.Choice([*LEVELS]), help="Lowest level to log.  [default: info]")
@option(
    LOG, "--log-format", type=click.Choice(FORMATS), help="Text, or one JSON object a line.  [default: text]"
)
def run(
    *,
    runtime_dir: str | None,
    config: str | None,
    check: bool,
    **flags: Any,
) -> None:
    """Run a switch in the foreground.

    Prints one line, `ready …`, once VMs can attach. SIGINT, SIGTERM and `supervisor stop` end it.
    """
    attached = given_attachments(flags)
    options = RunOptions(directory(runtime_dir))
    if config is not None:
        from supervisor.cli import config as config_file  # noqa: PLC0415 - few runs need it

        options = config_file.load(config, options)
    options = options._replace(gateway=given_gateway(flags, options.gateway))
    given: dict[str, Any] = {key: value for key, value in flags.items() if value is not None}
    if runtime_dir:
        given["runtime_dir"] = runtime_dir
    options = options._replace(**given)
    options = options._replace(attachments=(*options.attachments, *chain(*attached.values()))).checked()
    proc.check()
    if not (_check(options) if check else _serve(options)):
        raise click.exceptions.Exit(1)


def _check(options: RunOptions) -> bool:
    from supervisor.cli.check import look  # noqa: PLC0415

    done, faults = look(options)
    for line in () if faults else done:
        click.echo(f"would {line}")
    for line in faults:
        click.echo(f"Error: {line}", err=True)
    return not faults


def _serve(options: RunOptions) -> bool:
    from supervisor import first_processes  # noqa: PLC0415

    limits.check(limits.RUN if options.gateway is None else limits.GATEWAY)
    first = first_processes.start(options)  # before the imports below: their own take as long
    from supervisor.attach.listener_common import DESCRIPTOR_TABLE, RLIMIT_WANTED  # noqa: PLC0415
    from supervisor.base import logs  # noqa: PLC0415
    from supervisor.cli.announce import PidFile, tell_systemd  # noqa: PLC0415
    from supervisor.supervisor import Supervisor  # noqa: PLC0415

    wake, woken = socket.socketpair()
    for end in (wake, woken):
        end.setblocking(False)
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # as nohup(1) wants it
    for number in (signal.SIGINT, signal.SIGTERM, *([] if ignored else [signal.SIGHUP])):
        signal.signal(number, lambda *_: None)  # the byte that Python writes to the socket is what counts
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    raise_descriptor_limit(RLIMIT_WANTED)
    grow_descriptor_table(DESCRIPTOR_TABLE)
    try:
        logs.set_up(options.log_level, options.log_format)
        if (seconds := limits.processor_seconds()) is not None:
            logs.log.warning(
                "the limit of processor time (ulimit -t) is %d s: the kernel ends each process of the switch "
                "that has used it; raise it",
                seconds,
            )
        supervisor = Supervisor(options, first)
    except LocalError:
        first.close()
        raise
    pid_file = None
    try:
        supervisor.watch(woken.fileno())
        urls = supervisor.start()
        if urls is not None:
            if options.pid_file is not None:
                pid_file = PidFile(options.pid_file)
            what = " ".join(urls) or "nothing attached yet"
            click.echo(f"ready {options.name} in {supervisor.runtime_dir}: {what}")
            supervisor.ready()
            tell_systemd("READY=1")
        done = supervisor.run()
        tell_systemd("STOPPING=1")
        return done
    except LocalError:
        supervisor.give_up()
        raise
    finally:
        supervisor.close()
        if pid_file is not None:
            pid_file.close()
