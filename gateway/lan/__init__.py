"""The gateway as a station of the LAN: the frames that it hears and answers itself."""
