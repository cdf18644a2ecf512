"""The processes that start before the supervisor has imported its modules: all import at the same time.

Their channels keep what they are asked meanwhile. This file imports little.
"""

from typing import NamedTuple

from forwarder.errors import LocalError
from supervisor.base.paths import absolute
from supervisor.gateway.child import GatewayChild
from supervisor.pool.template_process import TemplateProcess
from supervisor.run_options import RunOptions


class FirstProcesses(NamedTuple):
    """What has been started; the supervisor's parts start what is missing when they need it."""

    gateway: GatewayChild | None = None
    template: TemplateProcess | None = None

    def close(self) -> None:
        """End them, and wait for their end: the supervisor cannot begin."""
        if self.gateway is not None:
            self.gateway.channel.close()
            self.gateway.close()
        if self.template is not None:
            self.template.close()


def start(options: RunOptions) -> FirstProcesses:
    """Start the processes that these options need. Raises LocalError; nothing is left behind then."""
    first = FirstProcesses()
    try:
        if options.gateway is not None:
            first = first._replace(gateway=GatewayChild())
        return first._replace(template=TemplateProcess(absolute(options.runtime_dir)))
    except LocalError:
        first.close()
        raise
