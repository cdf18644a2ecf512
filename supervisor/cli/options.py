"""Options that several commands share, and the parameter types that check them while parsing."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from forwarder.errors import LocalError
from forwarder.names import Policy
from supervisor.attach.addresses import LISTEN_FLAGS, Attachment, parse_listen, parse_tap
from supervisor.base import runtime_dir
from supervisor.cli.grouped import option
from supervisor.gateway.options import OPTIONS
from supervisor.ports.settings import SETTINGS, SettingError, from_text, plain, shown

F = TypeVar("F", bound=Callable[..., Any])

SWITCH, ATTACH, PORT, GATEWAY, LOG = (
    "The switch",
    "Where VMs attach (each can be given several times)",
    "Settings of its ports",
    "The gateway (needs --gateway; lists can be given several times)",
    "The log, on stderr",
)
"""Headings on pages of help."""

LISTEN_HELP = {
    "qemu": "Accept any number of VMs of QEMU's `-netdev stream` or `-netdev socket`.",
    "bess": "Accept any number of VMs of User-Mode Linux (`transport=bess`).",
    "vfkit": "Accept one VM at a time of vfkit, krunkit, libkrun or QEMU's `-netdev dgram`.",
    "connect": "Accept any number of VMs that attach by `POST /connect`, like gvforwarder.",
    "vhost": "Accept any number of VMs of vhost-user, which share their memory.",
    "dial_vhost": "Connect to the socket of a vhost-user VM that listens itself; try until it is there.",
}
METAVARS = {
    "qemu": "PATH|unix://PATH|tcp://HOST:PORT",
    "bess": "PATH|unixpacket://PATH",
    "vfkit": "PATH|unixgram://PATH",
    "connect": "PATH|unix://PATH",
    "vhost": "PATH|unix://PATH",
    "dial_vhost": "PATH|unix://PATH",
}


LISTS = ("pin", "reach")
"""Settings whose flags can be given several times."""


DEFAULTS = dict(shown(plain(Policy())))


def _help(key: str) -> str:
    default = f"  [default: {DEFAULTS[key]}]" if DEFAULTS[key] else ""
    return f"{SETTINGS[key].help}{default}"


class SettingsCommand(click.Command):
    """A command whose help page ends with a table of all settings."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table, at the terminal's width."""
        with formatter.section("Settings"):
            formatter.write_dl([(f"{key}={each.form}", _help(key)) for key, each in SETTINGS.items()])


class AttachmentType(click.ParamType[Attachment]):
    """A listener's URL, or the name of a TAP device."""

    name = "address"

    def __init__(self, transport: str) -> None:
        self._transport = transport

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Attachment:
        """Parse; what is wrong is wrong usage."""
        try:
            if self._transport == "tap":
                return Attachment(parse_tap(value))
            return Attachment(parse_listen(self._transport, value))
        except LocalError as error:
            self.fail(str(error), param, ctx)


class SettingType(click.ParamType[object]):
    """The value of one setting, as text."""

    name = "setting"

    def __init__(self, key: str) -> None:
        self._key = key

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> object:
        """Parse; what is wrong is wrong usage."""
        try:
            return from_text(self._key, value)
        except SettingError as error:
            self.fail(error.why, param, ctx)


class ChangeType(click.ParamType[tuple[str, object]]):
    """One ``KEY=VALUE``."""

    name = "change"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, object]:
        """Parse; what is wrong is wrong usage."""
        key, separator, text = value.partition("=")
        try:
            if not separator:
                raise SettingError(key, f"no value; write {key}=VALUE")
            return key, from_text(key, text)
        except SettingError as error:
            self.fail(str(error), param, ctx)


class SecondsType(click.FloatRange):
    """A finite number of seconds, at least ``min``."""

    name = "number of seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse; what is wrong is wrong usage."""
        seconds = super().convert(value, param, ctx)
        if not math.isfinite(seconds):
            self.fail(f"{value!r} is no number of seconds", param, ctx)
        return seconds


class SpanType(click.ParamType[float]):
    """A time span like 90s, 10m or 1h, in seconds."""

    name = "span"

    def __init__(self, *, may_be_zero: bool = False) -> None:
        self._may_be_zero = may_be_zero

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse; what is wrong is wrong usage."""
        found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(s|m|h)?", str(value))
        if found is None or not (self._may_be_zero or float(found[1])):
            self.fail(f"{value!r} is no time; write it like 90s, 10m or 1h", param, ctx)
        return float(found[1]) * {"s": 1, "m": 60, "h": 3600, None: 1}[found[2]]


def runtime_dir_option(command: F) -> F:
    """Add ``--runtime-dir``."""
    return option(
        SWITCH,
        "--runtime-dir",
        metavar="DIR",
        help="Directory of the switch's own sockets and lock.  "
        "[default: $XDG_RUNTIME_DIR/bulkhead, else /tmp/bulkhead-UID]",
    )(command)


def attachment_options(command: F) -> F:
    """Add ``--listen…`` and ``--tap``, which can be given several times."""
    for transport in ("tap", *reversed(LISTEN_FLAGS)):
        command = option(
            ATTACH,
            f"--{LISTEN_FLAGS.get(transport, transport)}",
            transport,
            type=AttachmentType(transport),
            multiple=True,
            metavar=METAVARS.get(transport, "NAME[,netns=NAME]"),
            help=LISTEN_HELP.get(
                transport, "Make this TAP device and attach it as a port; needs CAP_NET_ADMIN."
            ),
        )(command)
    return command


def settings_options(command: F) -> F:
    """Add a flag for every setting of a port; ``given_settings`` reads their values."""
    for key, setting in reversed(SETTINGS.items()):
        if key == "flood-unknown":  # the only one that is true by default
            flag = option(
                PORT,
                "--no-flood-unknown",
                is_flag=True,
                help="Do not deliver frames for addresses that no VM has sent from yet.  [default: deliver]",
            )
        elif key == "isolated":
            flag = option(PORT, "--isolated", is_flag=True, help=f"{setting.help}  [default: every port]")
        elif key == "guard":
            flag = option(PORT, "--guard/--no-guard", default=None, help=setting.help)
        else:
            flag = option(
                PORT,
                f"--{key}",
                type=SettingType(key),
                metavar=setting.form,
                multiple=key in LISTS,
                help=_help(key),
            )
        command = flag(command)
    return command


def gateway_options(command: F) -> F:
    """Add ``--gateway`` and a flag for each of its options; ``given_gateway`` reads their values."""
    for key, row in reversed(OPTIONS.items()):
        if row.kind is bool:  # all of them are true by default
            command = option(GATEWAY, f"--no-{key}", _field(key), is_flag=True, help=row.help)(command)
        else:
            command = option(
                GATEWAY,
                f"--{key}",
                _field(key),
                type=int if row.kind is int else str,
                multiple=row.kind is list,
                metavar=row.form,
                help=row.help,
            )(command)
    text = "Run a gateway for the VMs: DHCP, DNS, IPv6, and connections to the host and beyond."
    return option(GATEWAY, "--gateway", is_flag=True, help=text)(command)


def given_attachments(flags: dict[str, Any]) -> dict[str, tuple[Attachment, ...]]:
    """Take the flags of ``attachment_options`` out of ``flags``; return them by transport."""
    return {transport: flags.pop(transport) for transport in (*LISTEN_FLAGS, "tap")}


def given_gateway(flags: dict[str, Any], said: Mapping[str, object] | None) -> Mapping[str, object] | None:
    """Take the flags of ``gateway_options`` out of ``flags``; return them on top of a file's (``said``)."""
    wanted = flags.pop("gateway") or said is not None
    given: dict[str, object] = {}
    for key, row in OPTIONS.items():
        value = flags.pop(_field(key))
        if row.kind is list:
            value = list(value) or None
        elif row.kind is bool:
            value = False if value else None
        if value is not None:
            given[key] = value
    if given and not wanted:
        flags_given = [f"--no-{key}" if OPTIONS[key].kind is bool else f"--{key}" for key in given]
        *others, last = flags_given
        verb = "need" if others else "needs"
        raise click.UsageError(
            f"{' and '.join([', '.join(others), last] if others else [last])} {verb} --gateway"
        )
    if not wanted:
        return None
    both = dict(said or {})
    for key, value in given.items():
        more = both.get(key)
        both[key] = [*more, *value] if isinstance(more, list) and isinstance(value, list) else value
    return both


def _field(key: str) -> str:
    return f"gateway_{key.replace('-', '_')}"


def given_settings(flags: dict[str, Any]) -> dict[str, object]:
    """Return the settings from the flags of ``settings_options``."""
    settings: dict[str, object] = {}
    for key in SETTINGS:
        value = flags.get(key.replace("-", "_"))
        if key in LISTS and value:
            settings[key] = [item for items in value for item in items]
        elif key not in LISTS and (value not in (None, False) or (key == "guard" and value is False)):
            settings[key] = value
    if flags["no_flood_unknown"]:
        settings["flood-unknown"] = False
    return settings


def directory(given: str | None) -> str:
    """Return the runtime directory to use."""
    return given or runtime_dir.default()
