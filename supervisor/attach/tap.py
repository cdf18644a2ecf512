"""A TAP device as a port: open or make it; then it is a port like any other."""

import errno
import os

from forwarder import _core
from forwarder.errors import LocalError
from forwarder.names import PortId, PortRecord
from supervisor.attach.addresses import Attachment, PortOptions, Tap
from supervisor.attach.listener_common import VmHandler

NO_TAP = "an interface of that name exists and is no TAP device of one queue; choose another name"
_ADVICE = {
    errno.EPERM: "making a TAP device needs CAP_NET_ADMIN; run as root, or in a user namespace of your own",
    errno.EACCES: "/dev/net/tun cannot be opened; run as root, or get access to it",
    errno.ENOENT: "there is no /dev/net/tun; load the tun module",
    errno.ENODEV: "there is no /dev/net/tun; load the tun module",
    errno.EBUSY: "another process has that device; stop it, or choose another name",
    errno.EINVAL: NO_TAP,
}


class TapDevice:
    """One TAP device, attached while its port lives."""

    transport = "tap"
    descriptors = 0
    """Descriptors that it has open: none, since the device belongs to its port."""

    def __init__(self, address: Tap, settings: PortOptions, owner: VmHandler) -> None:
        """Open the device and make a port of it. Raises LocalError."""
        self.url = address.url
        self.address: Tap | None = address
        """What was attached; None if that is not known of a port that a worker brought."""
        self.unclaimed = False
        """Whether a worker brought its port and it has not been opened again yet."""
        self.settings = settings if settings.name else settings._replace(name=_port_name(address))
        descriptor = _open(address)
        try:
            record = owner.arrive(self.transport, descriptor, self.settings, self.url)
            self.port: PortId | None = record.id
        except LocalError:
            os.close(descriptor)
            raise

    @classmethod
    def adopted(cls, record: PortRecord, address: Tap | None) -> "TapDevice":
        """Go on with a device that a worker has kept since a supervisor died."""
        device = cls.__new__(cls)
        device.url = f"tap://{record.name}" if address is None else address.url
        device.address = address
        device.settings = PortOptions(record.name, record.policy)
        device.port = record.id
        device.unclaimed = True
        return device

    def close(self) -> None:
        """Do nothing: the descriptor is closed with the port."""

    def is_of(self, attachment: Attachment) -> bool:
        """Whether this attachment opens the device again; by the port's name if the device is not known."""
        address, settings = attachment
        if not isinstance(address, Tap):
            return False
        if self.address is None:
            return self.settings.name == (settings.name or _port_name(address))
        return (self.address.name, self.address.netns) == (address.name, address.netns)


def _port_name(address: Tap) -> str:
    return f"{address.name}@{os.path.basename(address.netns)}" if address.netns else address.name


def _open(address: Tap) -> int:
    netns = -1
    if address.netns:
        try:
            netns = os.open(address.netns, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise LocalError(
                f"network namespace {address.netns}: {(error.strerror or '').lower()}; "
                "make it with `ip netns add`, or give the path of one"
            ) from None
    try:
        descriptor, _ = _core.tap_open(address.name, netns)
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0, "choose another name")
        raise LocalError(f"cannot open TAP {address.name}: {error.strerror}; {advice}") from None
    finally:
        if netns >= 0:
            os.close(netns)
    return descriptor
