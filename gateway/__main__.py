"""``python -m gateway DESCRIPTOR``: the host side of a gateway, with its channel to the supervisor.

It ends with the supervisor, even if it is stopped: it has listeners that the next gateway needs.
It forks the process in the namespace as soon as it has imported what that one needs, then imports the rest.
"""

import signal
import socket
import sys

from forwarder import _core
from gateway.namespace_process import NamespaceProcess


def main() -> None:
    """Run one gateway."""
    _core.end_with_parent()
    supervisor = socket.socket(fileno=int(sys.argv[1]))
    namespace = NamespaceProcess(supervisor.fileno())
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    from forwarder.loop_channel import LoopChannel  # noqa: PLC0415
    from gateway.gateway import Gateway  # noqa: PLC0415

    wake, woken = socket.socketpair()
    for end in (wake, woken):
        end.setblocking(False)
    signal.set_wakeup_fd(wake.fileno())
    Gateway(LoopChannel(supervisor), namespace).run(woken)


if __name__ == "__main__":
    main()
