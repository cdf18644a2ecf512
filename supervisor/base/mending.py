"""Make a socket again whose file was deleted, as cleaners of temporary files do.

Used for the sockets that listen all the time: VMs', the console's, that of captures. A datagram socket, which
has one VM at a time, waits until its VM has gone (``attach.datagram``).
"""

from collections.abc import Callable

from forwarder.errors import LocalError
from forwarder.unix_sockets import SocketFile
from supervisor.base.logs import Throttle, log


def mended(what: str, file: SocketFile, make: Callable[[], SocketFile], throttle: Throttle) -> SocketFile:
    """Return the file of a socket: ``file``, or that of another socket if it was deleted.

    ``make`` puts another socket into use, or raises LocalError: then the log says so, and the next call tries
    it again. ``what`` names the socket in the log.
    """
    if not file.is_lost():
        return file
    try:
        made = make()
    except LocalError as error:
        throttle.warning("mend", f"{what} was deleted and cannot be made again: {error}")
        return file
    log.warning("%s was deleted and is made again", what)
    return made
