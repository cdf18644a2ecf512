"""Which Bulkhead this is: setup.cfg, ``--version`` and ``status`` take it from here."""

VERSION = "0.1.0"
