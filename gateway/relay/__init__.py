"""Carry traffic between the LAN's namespace and the host: TCP by splice, datagrams and pings by NAT."""
