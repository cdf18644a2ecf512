"""Between the LAN's namespace and the host: TCP spliced, datagrams and pings translated."""
