"""DNS for guests: answers our own names, and asks the host's resolvers for the others."""
