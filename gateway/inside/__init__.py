"""The process in the LAN's network namespace: addresses, packet filter, sockets."""
