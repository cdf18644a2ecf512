"""Names for guests: what is answered here, and what the host's resolvers are asked."""
