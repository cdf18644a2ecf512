"""Helpers of the tests of the gateway: its LAN, its world outside, and clients that ask it."""
