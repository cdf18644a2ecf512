"""The absolute path of a file or directory that an operator names, if there is one that can be shown."""

import os

from forwarder.errors import LocalError


def absolute(path: str) -> str:
    """Return the absolute path.

    Raises LocalError if it is relative to a working directory that was deleted, or no UTF-8 text: no message
    to a switch could hold it, nor a name of ZeroMQ's.
    """
    try:
        whole = "/" + os.path.abspath(path).lstrip("/")  # of two slashes POSIX lets it keep both
        whole.encode()
    except FileNotFoundError:
        why = f"{path} is a relative path, and the working directory was deleted; change to another one"
        raise LocalError(why) from None
    except UnicodeEncodeError:
        raise LocalError(f"{os.fsencode(whole)!r} is not UTF-8 text; choose another directory") from None
    return whole
