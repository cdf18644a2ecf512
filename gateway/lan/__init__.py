"""The gateway as a station of the LAN: packets that it answers itself, to the address that they came from."""
