"""Explain why two ends can or cannot reach each other: from the answers of a switch, in the client."""
