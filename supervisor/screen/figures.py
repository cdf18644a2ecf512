"""Write figures for a person, the same way everywhere.

Rates and sizes get three digits and a prefix (``12.3 k``, ``1.21 GiB``), since they are compared by eye.
Totals get every digit, since they are compared with other totals. An unknown figure is ``-``.
"""


def scaled(value: float | None, unit: str = "", base: int = 1000) -> str:
    """Write three digits, a prefix and the unit: ``12.3 kbit/s``, with ``base`` 1024 ``1.21 MiB``."""
    if value is None:
        return "-"
    size, prefixes = float(value), ["", "k", "M", "G", "T", "P"]
    if base == 1024:
        prefixes = ["", "Ki", "Mi", "Gi", "Ti", "Pi"]
    while abs(size) >= 999.5 and len(prefixes) > 1:
        size /= base
        del prefixes[0]
    digits = 0 if size == int(size) or abs(size) >= 99.95 else 1 if abs(size) >= 9.995 else 2
    return f"{size:.{digits}f} {prefixes[0]}{unit}".rstrip()


def octets(value: float | None) -> str:
    """Write a size: ``1.21 MiB``."""
    return scaled(value, "B", 1024)


def bits(value: float | None) -> str:
    """Write a rate: ``1.21 Gbit/s``."""
    return scaled(value, "bit/s")


def exact(value: int | None) -> str:
    """Write every digit: ``1,234,567``."""
    return "-" if value is None else f"{value:,}"


def percent(value: float | None) -> str:
    """Write a share of one processor: ``12.3``."""
    return "-" if value is None else f"{value:.1f}"


def duration(seconds: float | None) -> str:
    """Write a time span: ``3.2 s``, ``4:05``, ``3:04:05``, ``2 d 03:04``."""
    if seconds is None:
        return "-"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours:02}:{minutes:02}"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
