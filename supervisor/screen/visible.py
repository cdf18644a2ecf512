"""Text from outside, as it may be written to a terminal."""


def visible(text: str) -> str:
    """Return ``text`` without characters that would control a terminal."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
