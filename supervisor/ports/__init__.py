"""Ports: their registry, states, settings and limits; pure, without processes and sockets."""
