"""Addresses for guests: DHCP, and who has which address and name."""
