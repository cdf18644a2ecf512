"""``python -m gateway.inside DESCRIPTOR``: started by the gateway, in the LAN's network namespace."""

from gateway.inside.process import main

main()
