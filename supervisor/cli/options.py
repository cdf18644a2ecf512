"""Options that more than one command has, and the parameter types that check them while parsing."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from forwarder import counted
from forwarder.errors import LocalError
from forwarder.names import Policy
from supervisor.attach.addresses import LISTEN_FLAGS, Attachment, parse_listen, parse_tap
from supervisor.base import runtime_dir
from supervisor.gateway.options import OPTIONS
from supervisor.ports.settings import SETTINGS, SettingError, from_text, plain, shown

F = TypeVar("F", bound=Callable[..., Any])

LISTEN_HELP = {
    "qemu": "Take VMs of QEMU's `-netdev stream` and `-netdev socket`, many.",
    "bess": "Take VMs of User-Mode Linux (`transport=bess`), many.",
    "vfkit": "Take one VM of vfkit, krunkit, libkrun or QEMU's `-netdev dgram`.",
    "connect": "Take VMs that attach by `POST /connect`, like gvforwarder, many.",
    "vhost": "Take VMs of vhost-user, which share their memory, many.",
    "dial_vhost": "Take a VM of vhost-user that listens itself: dial, and dial again for ever.",
}
METAVARS = {
    "qemu": "unix://PATH|tcp://HOST:PORT",
    "bess": "unixpacket://PATH",
    "vfkit": "unixgram://PATH",
    "connect": "unix://PATH",
    "vhost": "unix://PATH",
    "dial_vhost": "unix://PATH",
}


LISTS = ("pin", "reach")
"""Settings whose flags can be given again and again."""


DEFAULTS = dict(shown(plain(Policy())))


def _help(key: str) -> str:
    default = f"  [default: {DEFAULTS[key]}]" if DEFAULTS[key] else ""
    return f"{SETTINGS[key].help}{default}"


SETTINGS_HELP = "\b\nSettings:\n" + "\n".join(
    f"  {f'{key}={setting.form}':26} {_help(key)}" for key, setting in SETTINGS.items()
)
"""A table that click does not wrap."""


def _meanings(title: str, words: Mapping[str, str]) -> str:
    lines = "\n".join(f"  {word:18} {meaning}" for word, meaning in words.items())
    return f"\b\n{title}:\n{lines}"


COUNTED_HELP = "\n\n".join(
    [
        _meanings("Drops of a port, frames", counted.DROPS),
        _meanings("What the gateway refuses", counted.REFUSED),
        _meanings("What else the gateway counts", counted.RELAYED),
        _meanings("Leases and names", counted.SERVED),
    ]
)
"""What the words mean that ``supervisor stats`` shows."""


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


def runtime_dir_option(command: F) -> F:
    """Add ``--runtime-dir``."""
    return click.option(
        "--runtime-dir",
        metavar="DIR",
        help="The switch's directory.  [default: $XDG_RUNTIME_DIR/bulkhead, else /tmp/bulkhead-UID]",
    )(command)


def attachment_options(command: F) -> F:
    """Add ``--listen…`` and ``--tap``, each as often as wanted."""
    for transport in ("tap", *reversed(LISTEN_FLAGS)):
        command = click.option(
            f"--{LISTEN_FLAGS.get(transport, transport)}",
            transport,
            type=AttachmentType(transport),
            multiple=True,
            metavar=METAVARS.get(transport, "NAME[,netns=NAME]"),
            help=LISTEN_HELP.get(transport, "Make a TAP device a port (needs CAP_NET_ADMIN)."),
        )(command)
    return command


def settings_options(command: F) -> F:
    """Add a flag for every setting of a port; ``given_settings`` makes settings of what they say."""
    for key, setting in reversed(SETTINGS.items()):
        if key == "flood-unknown":  # the one that is true unless said otherwise
            option = click.option(
                "--no-flood-unknown",
                is_flag=True,
                help="Deliver no frames to addresses that nobody has used yet.",
            )
        elif key == "isolated":
            option = click.option("--isolated", is_flag=True, help=setting.help)
        elif key == "guard":
            option = click.option("--guard/--no-guard", default=None, help=setting.help)
        else:
            option = click.option(
                f"--{key}",
                type=SettingType(key),
                metavar=setting.form,
                multiple=key in LISTS,
                help=_help(key),
            )
        command = option(command)
    return command


def gateway_options(command: F) -> F:
    """Add ``--gateway`` and a flag for all that can be said of it; ``given_gateway`` takes what they say."""
    for key, option in reversed(OPTIONS.items()):
        if option.kind is bool:  # all of them are true unless said otherwise
            command = click.option(f"--no-{key}", _field(key), is_flag=True, help=option.help)(command)
        else:
            command = click.option(
                f"--{key}",
                _field(key),
                type=int if option.kind is int else str,
                multiple=option.kind is list,
                metavar=option.form,
                help=option.help,
            )(command)
    text = "Give the VMs a gateway: addresses, names, the way out. What follows is said of it."
    return click.option("--gateway", is_flag=True, help=text)(command)


def given_gateway(flags: dict[str, Any], said: Mapping[str, object] | None) -> Mapping[str, object] | None:
    """Take the flags of ``gateway_options`` out of ``flags``; return them on top of what a file ``said``."""
    wanted = flags.pop("gateway") or said is not None
    given: dict[str, object] = {}
    for key, option in OPTIONS.items():
        value = flags.pop(_field(key))
        if option.kind is list:
            value = list(value) or None
        elif option.kind is bool:
            value = False if value else None
        if value is not None:
            given[key] = value
    if given and not wanted:
        raise click.UsageError(f"{', '.join(given)} is said of the gateway; add --gateway")
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
    """Return the settings that the flags of ``settings_options`` say."""
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
