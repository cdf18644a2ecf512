"""``supervisor run --check``: show what a run would do, or its fault; makes and starts nothing.

Flags and file have been read already, so only faults of the machine are left: a taken path, a port in use, a
missing right. Only a gateway can check its options: a process of it reads them, answers, and ends. Another
process may take a path between this check and the run.
"""

import os
import select
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import cast

from forwarder import rendezvous, unix_sockets
from forwarder.channel import Channel, ChannelClosedError
from forwarder.errors import BulkheadError, LocalError
from forwarder.messages import Command, Reply
from forwarder.names import Policy, format_mac
from supervisor.attach import notifications
from supervisor.attach.addresses import Attachment, Tap, same_place
from supervisor.attach.stream import bind_tcp
from supervisor.attach.tap import NO_TAP
from supervisor.base import runtime_dir
from supervisor.base.paths import absolute
from supervisor.capture import recorder
from supervisor.capture.recorder import NEEDS_GATEWAY
from supervisor.cli.announce import check_pid_file
from supervisor.gateway import listening
from supervisor.gateway.child import GatewayChild
from supervisor.gateway.listening import Place
from supervisor.ports.settings import plain, shown
from supervisor.run_options import RunOptions

ANSWER_S = 10.0
"""A gateway reads its options in half a second."""
CAP_NET_ADMIN = 12


def look(options: RunOptions) -> tuple[list[str], list[str]]:
    """Return the actions of a run, a line each, and its faults."""
    done: list[str] = []
    faults: list[str] = []

    def try_(step: Callable[[], str]) -> None:
        try:
            done.append(step())
        except BulkheadError as error:
            faults.append(str(error))

    try_(lambda: _directory(options))
    for attachment in options.attachments:
        try_(lambda attachment=attachment: _attachment(attachment))  # type: ignore[misc]
    faults.extend(_twice(options.attachments))
    if options.gateway is not None:
        gateway = options.gateway
        try_(lambda: _gateway(dict(gateway)))
    if options.pcap is not None:
        try_(lambda: _pcap(options))
    if options.pid_file is not None:
        file = options.pid_file
        try_(lambda: f"write the process id to {check_pid_file(file)}")
    if options.notification is not None:
        url = options.notification
        try_(lambda: f"send notifications to {notifications.parse(url)}")
    return done, faults


def _pcap(options: RunOptions) -> str:
    if options.gateway is None:
        raise LocalError(NEEDS_GATEWAY)
    return f"write what passes the gateway to {recorder.check(str(options.pcap))}"


def _directory(options: RunOptions) -> str:
    path = absolute(options.runtime_dir)
    exists = runtime_dir.check(path)
    live = False
    with suppress(OSError):
        live = exists and unix_sockets.is_live(rendezvous.path(path, rendezvous.CONSOLE))
    if live:
        raise LocalError(f"a supervisor runs in {path} already; stop it, or choose another --runtime-dir")
    lock = rendezvous.path(path, rendezvous.LOCK)
    left = exists and os.path.exists(lock) and os.path.getsize(lock) > 0
    return f"run {options.name!r} in {path}" + (", and take over what was left there" if left else "")


def _attachment(attachment: Attachment) -> str:
    address, settings = attachment
    usual = shown(plain(Policy()))
    news = [f"{key}={value}" for key, value in shown(plain(settings.policy)) if (key, value) not in usual]
    said = "".join(f" {each}" for each in [f"name={settings.name}"] * bool(settings.name) + news)
    if isinstance(address, Tap):
        _check_tap(address)
        return f"make {address.url}{said}"
    if address.transport == "dial_vhost":
        return f"dial {address.url}{said}"
    if address.path:
        unix_sockets.check_free(address.path)
    else:
        bind_tcp(address).close()
    return f"listen at {address.url} for {address.transport} VMs{said}"


def _check_tap(address: Tap) -> None:
    known = f"/sys/class/net/{address.name}"
    if not address.netns and os.path.exists(known) and not os.path.exists(f"{known}/tun_flags"):
        raise LocalError(f"cannot open TAP {address.name}: {NO_TAP}")
    if address.netns and not os.path.exists(address.netns):
        raise LocalError(f"network namespace {address.netns}: no such file; make it with `ip netns add`")
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        raise LocalError(f"{address.url} needs /dev/net/tun, which cannot be opened; load the tun module")
    with open("/proc/self/status", encoding="ascii") as file:
        rights = next(int(line.split()[1], 16) for line in file if line.startswith("CapEff:"))
    if not rights >> CAP_NET_ADMIN & 1:
        raise LocalError(
            f"{address.url} needs CAP_NET_ADMIN; run as root, or in a user namespace of your own"
        )


def _twice(attachments: tuple[Attachment, ...]) -> Iterator[str]:
    urls: list[str] = []
    pins: dict[bytes, str] = {}
    for address, settings in attachments:
        if any(same_place(each, address.url) for each in urls):
            yield f"{address.url} is attached twice; leave one out"
        urls.append(address.url)
        for mac in settings.policy.pinned:
            other = pins.setdefault(mac, address.url)
            if other != address.url:
                yield f"{format_mac(mac)} is pinned to {other} and to {address.url}; pin it to one of them"


def _gateway(options: dict[str, object]) -> str:
    child = GatewayChild()
    channel = Channel(child.channel)
    try:
        channel.send(Command("check", options))
        said = channel.receive() if select.select([channel.fileno()], [], [], ANSWER_S)[0] else None
    except ChannelClosedError:
        said = None
    finally:
        channel.close()  # which ends it
        child.close()
    match said:
        case (Reply(True, {"subnet": str(subnet), "forwards": list(forwards), "places": list(places)}), _):
            for place in places:
                listening.check(Place.read(cast(dict[str, object], place)))
            return " ".join([f"run a gateway for {subnet}", *(f"forward={each}" for each in forwards)])
        case (Reply(False, {"usage": str(why)}), _) | (Reply(False, str(why)), _):
            raise LocalError(f"gateway: {why}")
        case _:
            raise LocalError("the gateway does not start; `supervisor run` without --check logs the reason")
