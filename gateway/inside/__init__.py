"""The process in the LAN's network namespace, and what it sets up there."""
