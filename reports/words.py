"""How numbers and strange texts look in every format: the same on the console, in Markdown and in JUnit."""

from __future__ import annotations

import unicodedata

from reports.record import Attribute, clip

# Characters that steer a terminal, turn the reading direction, or no XML may hold.
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
NOTHING = "-"


def plain(text: str, limit: int = 2000) -> str:
    """One harmless line: every character that a terminal, reader or XML parser would act on stands escaped."""
    return visible(clip(text, limit))


def visible(text: str) -> str:
    """The whole text, harmless: what plain() escapes stands escaped, all else comes back as it is."""
    return "".join(_visible(character) for character in text)


def _visible(character: str) -> str:
    if unicodedata.category(character) not in _HIDDEN:
        return character
    code = ord(character)
    if character in "\n\r\t":
        return {"\n": "\\n", "\r": "\\r", "\t": " "}[character]
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def duration(ns: float) -> str:
    """35.6 ms, 1.23 s: three significant digits in the unit that reads best."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if abs(ns) >= size * 0.9995:
            return f"{_digits(ns / size)} {unit}"
    return f"{ns:.0f} ns"


def amount(count: float) -> str:
    """4.35 MB, decimal units, as package sizes are quoted."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(count) >= size * 0.9995:
            return f"{_digits(count / size)} {unit}"
    return f"{count:.0f} B"


def many(count: float) -> str:
    """151 M: three significant digits, for things that are counted in millions."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(count) >= size * 0.9995:
            return f"{_digits(count / size)} {unit}"
    return f"{count:.0f}"


def share(fraction: float) -> str:
    """69.6 %."""
    return f"{100 * fraction:.1f} %"


def signed_share(fraction: float) -> str:
    """+3.1 %, -0.4 %, ±0.0 %."""
    sign = "±" if abs(fraction) < 0.0005 else "+" if fraction > 0 else "-"
    return f"{sign}{abs(100 * fraction):.1f} %"


def small(number: float) -> str:
    """1.2e-06; 0 stays 0."""
    return "0" if number == 0 else f"{number:.1e}"


def word(value: Attribute) -> str:
    """An attribute: yes, no, nothing for none, else as it stands."""
    return "" if value is None else "yes" if value is True else "no" if value is False else str(value)


def _digits(number: float) -> str:
    return f"{number:.2f}" if abs(number) < 9.995 else f"{number:.1f}" if abs(number) < 99.95 else f"{number:.0f}"
