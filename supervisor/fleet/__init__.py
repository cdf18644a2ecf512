"""The workers of all ports together: give them what the other folders hold, watch and replace them."""
