"""Stub of the compiled core, which is one module; one file for each folder that it is made of."""

from forwarder._core.capture import *  # noqa: F403
from forwarder._core.engine import *  # noqa: F403
from forwarder._core.offload import *  # noqa: F403
from forwarder._core.packet import *  # noqa: F403
from forwarder._core.relay import *  # noqa: F403
from forwarder._core.shared import *  # noqa: F403
from forwarder._core.system import *  # noqa: F403
