"""Membership: publish it to all workers, introduce newcomers, and learn when a change is in force."""
