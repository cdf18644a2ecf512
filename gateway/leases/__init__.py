"""Addresses for guests: DHCP, and the table of leases and names."""
