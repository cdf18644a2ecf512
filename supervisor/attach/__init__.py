"""How VMs attach: a listener for each transport, and the ports that need none."""
