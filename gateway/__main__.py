"""``python -m gateway DESCRIPTOR``: the host side of a gateway, with its channel to the supervisor."""

import signal
import socket
import sys

from forwarder.loop_channel import LoopChannel
from gateway.gateway import Gateway


def main() -> None:
    """Run one gateway."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    Gateway(LoopChannel(socket.socket(fileno=int(sys.argv[1])))).run()


if __name__ == "__main__":
    main()
