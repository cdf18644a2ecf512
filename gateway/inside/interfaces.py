"""The names of the interfaces in the namespace."""

LAN = "lan0"
"""A TAP; its other end is a port of the switch."""

OUT = "out0"
"""A TUN; what the host side writes comes in by it."""
