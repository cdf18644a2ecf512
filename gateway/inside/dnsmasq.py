"""dnsmasq in the namespace: what it is told, and its process.

It leases addresses (DHCP), announces the IPv6 prefix (router advertisements) and answers for names. All of
its configuration goes in through standard input, so that nothing of it lies around, and nothing of the
host's configuration gets in. A change of names is a restart, which takes some ten milliseconds, and a client
asks again after seconds; in exchange there is one way in which a configuration comes into force.

**Leases stay.** A guest that asks for the first time gets an address that is computed from its MAC address,
so it is the same one after any restart unless another guest has it by then; and while the switch runs, the
lease file remembers who has which.

**Names.** A guest is known by the host name that it gives when it asks for a lease (or by its MAC address
with dashes), plainly and in ``containers.internal``. dnsmasq gives no guest a name that is configured, so
nobody can pass for the gateway or the host. Names that it does not know go to the host's resolver, by an
address at which the gateway's host side listens; but nothing that is below a zone does (``names``).

Privileges: in a user namespace the only user is root, which is nobody special outside. Without a user
namespace (the gateway runs as root) dnsmasq gives root up as soon as it has its sockets.
"""

import os
import subprocess
from contextlib import suppress

from forwarder.errors import LocalError
from gateway.api import names
from gateway.settings import DOMAIN, Settings, lease_range

UPSTREAM = ("127.0.0.1", 5353)
"""Where the host side listens, inside the namespace, for questions to the host's resolver."""

LEASE_TIME = "1h"
"""As gvproxy. A guest renews after half of it; the address stays its own as long as it comes back in time."""

END_S = 1.0
"""It ends in milliseconds, unless it is stuck, and then it writes nothing."""

_LAST_WORDS = 4096


def configuration(settings: Settings, interface: str, *, in_user_namespace: bool) -> str:
    """Return the configuration file."""
    policy = settings.policy
    first, last = lease_range(policy.subnet)
    lines = [
        f"interface={interface}",
        "except-interface=lo",
        "bind-interfaces",
        "no-resolv",
        "no-hosts",
        "no-poll",
        f"server={UPSTREAM[0]}#{UPSTREAM[1]}",
        "pid-file",
        "log-facility=-",
        "quiet-dhcp",
        "quiet-dhcp6",
        "quiet-ra",
        f"domain={DOMAIN}",
        f"local=/{DOMAIN}/",
        "expand-hosts",
        f"dhcp-leasefile={settings.lease_file}",
        f"dhcp-range={first},{last},{policy.subnet.netmask},{LEASE_TIME}",
        f"dhcp-range={policy.prefix.network_address},ra-stateless,ra-names,64,{LEASE_TIME}",
        "enable-ra",
        f"ra-param={interface},mtu:{settings.mtu},60",
        "dhcp-authoritative",
        "dhcp-generate-names",
        # A guest that calls itself so would be asked for everybody's proxy settings.
        "dhcp-name-match=set:wpad,wpad",
        "dhcp-ignore-names=tag:wpad",
        f"dhcp-option=option:router,{policy.gateway4}",
        f"dhcp-option=option:dns-server,{policy.gateway4}",
        f"dhcp-option=option:mtu,{settings.mtu}",
        f"dhcp-option=option:domain-search,{','.join(settings.search)}",
        f"dhcp-option=option6:domain-search,{','.join(settings.search)}",
    ]
    # Without a user namespace it runs as nobody once it has its sockets; else root is the only user there is,
    # and dropping groups is forbidden, which "debug" mode leaves out.
    lines += ["no-daemon"] if in_user_namespace else ["keep-in-foreground", "user=nobody", "group=nogroup"]
    for lease in settings.leases:
        lines.append(f"dhcp-host={lease.mac},{lease.address}" + (f",{lease.name}" if lease.name else ""))
    for zone in names.domains(settings.zones):
        lines.append(f"local=/*.{zone.name}/")
        if zone.default is not None:
            lines.append(f"address=/*.{zone.name}/{zone.default}")
    for record in names.exact(settings.records, settings.zones):
        lines.append(f"host-record={record.name},{record.address}")
    return "\n".join(lines) + "\n"


class Dnsmasq:
    """One dnsmasq process, a child of the process that holds the namespace."""

    def __init__(self, configured: str) -> None:
        """Start it. Raises LocalError."""
        try:
            self._child = subprocess.Popen(
                ["dnsmasq", "--conf-file=-"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                cwd="/",
            )
        except OSError as error:
            raise LocalError(f"cannot start dnsmasq: {error.strerror}; install dnsmasq-base") from None
        assert self._child.stdin is not None
        assert self._child.stderr is not None
        self._stderr = self._child.stderr.fileno()
        os.set_blocking(self._stderr, False)
        self._words = b""
        self.pidfd = os.pidfd_open(self._child.pid)
        with suppress(BrokenPipeError):
            self._child.stdin.write(configured.encode())
            self._child.stdin.close()

    @property
    def stderr(self) -> int:
        """The descriptor to poll for what it says; ``listen`` then."""
        return self._stderr

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._child.pid

    def listen(self) -> bool:
        """Read what it says, so that it never waits for us, and keep the end of it; False at its end."""
        try:
            words = os.read(self._stderr, _LAST_WORDS)
        except BlockingIOError:
            return True
        self._words = (self._words + words)[-_LAST_WORDS:]
        return bool(words)

    def ended(self) -> bool:
        """Whether it has ended."""
        return self._child.poll() is not None

    def last_words(self) -> str:
        """Return the last line that it said, which is why it has ended."""
        while self._child.poll() is not None and self.listen():
            continue
        lines = self._words.decode(errors="replace").strip().splitlines()
        return lines[-1].removeprefix("dnsmasq: ").strip() if lines else "it said nothing"

    def close(self) -> None:
        """End it, between two changes of its lease file: one that was cut short could lose leases."""
        self._child.terminate()
        try:
            self._child.wait(END_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        os.close(self.pidfd)
        assert self._child.stderr is not None
        self._child.stderr.close()
