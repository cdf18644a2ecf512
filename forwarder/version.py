"""The version of Bulkhead, for setup.cfg, ``--version`` and ``status``."""

VERSION = "0.1.0"
