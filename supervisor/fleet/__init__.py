"""Worker processes: start them, give them ports and rings, publish membership, watch and replace them."""
