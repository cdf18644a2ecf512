"""The words on the screens and in ``events``, with their meaning.

``supervisor help WORD`` reads it, and a test compares it with the table of docs/operating.md and with the
headings of the screens. ``forwarder.counted`` has the meaning of the counters.
"""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches

from forwarder import counted
from supervisor.ports.settings import SETTINGS

COLUMNS = {
    "port": "number of the port; the next VM gets the next free one, so none is used again at once",
    "name": "of the port: the name of its listener, or the transport and the number",
    "via": "transport by which the VM is attached",
    "state": "of the port, of the gateway or of a switch; each state is a word of its own",
    "up": "time since the VM attached, or since the switch started",
    "mac": "MAC address that a VM sent from",
    "address": "IP address that the gateway leased",
    "addresses": "IP addresses that the gateway leased to the VM, and MAC addresses that it sent from",
    "rx": "frames and bytes from the VM",
    "tx": "frames and bytes to the VM",
    "in": "from the VM, a second",
    "out": "to the VM, a second",
    "traffic": "bits a second from and to the VM as bars, the newest at the right",
    "frames": "with rx and tx: Ethernet frames, as they are on the wire of the port",
    "bytes": "with rx and tx: of these frames, from the destination address to the last byte of data",
    "flooded": "frames from the VM that went to all ports: broadcast, multicast, unknown addresses",
    "queue": "bytes that wait for the VM now",
    "drops": "frames that the switch did not deliver, by reason; each reason is a word of its own",
    "filtered": "floods that this port did not get, because of a setting of this port or of the sender",
    "hairpin": "frames whose destination is behind the port that they came from",
    "eagain": "writes that found the VM's socket full and were repeated",
    "enobufs": "writes for which the kernel had no buffer and that were repeated",
    "restarts": "workers of this port that were replaced",
    "worker": "process that serves the port",
    "supervisor": "process that takes VMs in, starts the workers and answers these commands",
    "namespace": "process of the gateway that makes its sockets inside its network namespace",
    "process": "the supervisor, a process of the gateway, or the worker of a port",
    "pid": "process id",
    "cpu": "share of one processor that the process used lately, and its seconds since it began",
    "memory": "of the process: PSS if the kernel tells it, else RSS",
    "rss": "memory of the process, all of it",
    "pss": "memory of the process, with only its share of shared pages",
    "threads": "of the process",
    "fds": "descriptors that the process has open",
    "switches": "context switches of the process",
    "epoch": "number of this supervisor's run; for bug reports",
    "sequence": "number of the last change of the ports; for bug reports",
    "age": "time since the last frame from the address",
    "pinned": "no other port may use the address",
    "known as": "name that the gateway answers with the address",
    "ends in": "time until the lease ends, if its VM does not renew it",
    "setting": "of a port; `set` changes it, and each setting is a word of its own",
    "ports": "number of ports of the switch",
    "directory": "where the switch has its sockets and its lock; `--runtime-dir` names it",
    "departed": "ports that have gone; their counts stay in the sums",
    "listener": "socket that VMs attach to",
    "gateway": "process that gives VMs leases, names and connections to the host and beyond",
    "flows": "connections that the gateway carries now",
    "relayed": "ends of the connections that the gateway carried",
    "served": "leases and names that the gateway gave",
}
"""Headings and other words of the tables."""

STATES = {
    "pending": "the VM is attached and waits for a worker",
    "starting": "its process runs and has not reported that it serves",
    "live": "it serves",
    "stalled": "frames have waited for the VM for three seconds, and it has read none",
    "waiting": "its process was lost, and the next one starts in a moment",
    "parked": "its processes failed too often; detach the port, or let the VM connect again",
    "ending": "its worker was told to end",
    "silent": "its process does not answer; it may be stopped or stuck",
    "off": "it was ended and is not started again",
}
"""States of ports and of the gateway."""

TRANSPORTS = {
    "qemu": "stream socket of QEMU or libkrun: each frame follows its length in 32 bits",
    "bess": "seqpacket socket: each message is a frame",
    "vfkit": "datagram socket, as vfkit and krunkit have: each message is a frame",
    "connect": "stream of `POST /connect`: each frame follows its length in 16 bits",
    "tap": "TAP device of the kernel",
    "gateway": "TAP device of the gateway, in its network namespace",
    "vhost": "vhost-user: the worker reads and writes the queues in the VM's memory",
}
"""Ways in which VMs are attached."""

LEASES = {
    "offered": "the VM was offered the address and has not asked for it yet",
    "bound": "the VM has the address",
    "kept": "the lease has ended, and the address is kept for the VM while there are others",
    "declined": "the VM has found the address in use, so it is leased to no VM for a while",
}
"""States of leases."""

EVENTS = {
    "ready": "the switch serves, and VMs can attach",
    "attach": "a VM has attached, or a TAP",
    "attach-refused": "a VM was refused at its listener: `reason`",
    "gone": "a port has ended: `reason`",
    "restart": "a worker was lost (`reason`), and the next one starts",
    "parked": "a port lost too many workers (`reason`) and waits for the operator",
    "takeover": "this supervisor follows one that died, and takes its workers over",
    "taken-over": "a port was taken over with its worker",
    "refused": "a port was not taken over: `reason`",
    "stall": "a VM reads nothing, and frames wait for it",
    "stall-end": "it reads again",
    "silent": "a worker does not answer",
    "heard": "it answers again, after `silent_s` seconds",
    "unanswered": "a worker has not confirmed a change for long",
    "unfinished": "a VM leaves checksums undone, and its port has no `offload`",
    "spoof": "a VM sends from addresses that are pinned elsewhere, or not to it",
    "spoof-end": "no more for ten seconds; `frames` in `seconds`",
    "storm": "a VM sends more floods than its limit",
    "storm-end": "no more for ten seconds",
    "limit": "a VM uses more MAC addresses than its `limit-macs`",
    "limit-end": "no more for ten seconds",
    "asks": "a VM asks the gateway for more names, leases or connections than its share",
    "asks-end": "no more for ten seconds",
    "isolated": "a VM sends to ports that it may not reach",
    "isolated-end": "no more for ten seconds",
    "guard": "a guard has refused a frame: `reason`",
    "mac-new": "a VM has sent from a MAC address that no VM used before",
    "mac-moved": "a MAC address is at another port now",
    "mac-flapping": "a MAC address goes to and fro: two VMs use it",
    "mac-flapping-end": "it has stayed at one port for ten seconds",
    "lease": "the gateway's leases: `state` given, renewed (once) or ended; `reason` of the end",
    "lease-refused": "a guest got no lease: `reason` no-address, in-use, not-offered or declined",
    "set": "settings were changed; `by`: the user that asked",
    "listener": "a listener or TAP was `added` or removed at run time; `by`: the user that asked",
    "detach": "a VM is to be disconnected; `by`: the user that asked",
    "capture": "a capture has begun or ended; `by`: the user that asked",
    "forward": "a forward was `added` or removed; `by`: the user that asked, `via` services for the HTTP API",
    "zone": "names were added over the HTTP API; `by`: the user that asked",
    "gateway": "`state` of the gateway",
    "resolver": "the host's resolvers answer VMs' questions, or not: `state` live or silent",
    "cell": "how processes are confined; what is `missing`",
    "cell-refused": "a cell has refused system calls",
    "notification": "the program of `--notification` does not listen",
    "message": "any other line of the log",
}
"""Kinds of events; a word in backquotes is a field of the event."""

GROUPS: Mapping[str, Mapping[str, str]] = {
    "column": COLUMNS,
    "state": STATES,
    "lease": LEASES,
    "transport": TRANSPORTS,
    "setting": {key: setting.help for key, setting in SETTINGS.items()},
    "event": EVENTS,
    "drop": counted.DROPS,
    "flow of the gateway": counted.FLOWS,
    "refused by the gateway": counted.REFUSED,
    "relayed by the gateway": counted.RELAYED,
    "served by the gateway": counted.SERVED,
}
"""The kind of words in each table."""


def meanings(word: str) -> list[tuple[str, str]]:
    """Return (kind, meaning) of a word in every table that has it; empty if it is unknown."""
    said = word.strip().lower()
    wanted = said.replace(" ", "_").removesuffix("_%").removesuffix("_s").removesuffix("/s")
    return [(kind, table[each]) for kind, table in GROUPS.items() for each in {said, wanted} & table.keys()]


def like(word: str) -> list[str]:
    """Return the most similar words."""
    return get_close_matches(word.lower(), {each for table in GROUPS.values() for each in table})


def all_words() -> Iterator[tuple[str, str, str]]:
    """Yield (kind, word, meaning) of every table."""
    for kind, table in GROUPS.items():
        for word, meaning in table.items():
            yield kind, word, meaning
