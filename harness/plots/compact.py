"""Drawings in fewer bytes: numbers to a hundredth of a point, paths by steps rather than by places.

What is drawn moves by at most half of that hundredth, which no screen shows. Published reports hold every
figure twice, in the page and beside it, so that half of what is published would otherwise be digits.
"""

from __future__ import annotations

import re

POINTS = {"M": 1, "L": 1, "Q": 2, "C": 3}
"""Points of a path's commands, the end last (SVG 1.1, section 8.3)."""
_TOKEN = re.compile(r"[A-Za-z]|-?\d+\.?\d*")
_ALIKE = re.compile(
    r'<g((?: clip-path="[^"]*")?)>((?:\s*<use [^>]*?( style="[^"]*")/>)(?:\s*<use [^>]*?\3/>)*\s*)</g>'
)


def number(hundredths: int) -> str:
    """Hundredths as a number, without what it can do without."""
    sign, rest = "-" if hundredths < 0 else "", abs(hundredths)
    text = f"{rest // 100 or ''}" + (f".{rest % 100:02d}".rstrip("0") if rest % 100 else "")
    return sign + (text or "0")


def joined(numbers: list[int]) -> str:
    """Hundredths in a row, with a space only where no sign parts them."""
    words = [number(n) for n in numbers]
    return "".join(w if not i or w.startswith("-") else f" {w}" for i, w in enumerate(words))


def path(data: str) -> str:
    """A path's ``d``, as Matplotlib writes it: absolute ``M``, ``L``, ``Q``, ``C`` and ``z``.

    Places are rounded, not steps, so that nothing drifts along a path.

    Raises:
        ValueError: for a command that Matplotlib does not write.
    """
    tokens = _TOKEN.findall(data)
    out: list[str] = []
    last = ""
    x = y = start_x = start_y = i = 0
    while i < len(tokens):
        command = tokens[i]
        i += 1
        if command == "z":
            x, y = start_x, start_y
            out.append("z")
            last = "z"
            continue
        if command not in POINTS:
            raise ValueError(f"path with the command {command!r}")
        count = 2 * POINTS[command]
        places = [round(100 * float(t)) for t in tokens[i : i + count]]
        i += count
        if command == "M":
            x, y = start_x, start_y = places[0], places[1]
            word, numbers = "M", places
        else:
            numbers = [p - (y if k % 2 else x) for k, p in enumerate(places)]
            x, y = places[-2:]
            word = command.lower()
            if word == "l" and not numbers[1]:
                word, numbers = "h", numbers[:1]
            elif word == "l" and not numbers[0]:
                word, numbers = "v", numbers[1:]
        text = joined(numbers)
        # a command that repeats goes without its letter; two moves would be a line
        if word == last and word != "M":
            out.append(text if text.startswith("-") else f" {text}")
        else:
            out.append(word + text)
        last = word
    return "".join(out)


def compact(text: str) -> str:
    """A drawing of Matplotlib's SVG backend with shorter paths, places and styles."""

    def places(match: re.Match[str]) -> str:
        return re.sub(r"-?\d+\.\d{3,}", lambda m: number(round(100 * float(m[0]))), match[0])

    text = re.sub(r' d="([^"]*)"', lambda m: f' d="{path(m[1])}"', text)
    # scales stay as they are: what they multiply is large
    text = re.sub(r' (?:x|y|width|height|viewBox)="[^"]*"|translate\([^)]*\)', places, text)
    text = re.sub(r'style="[^"]*"', lambda m: m[0].replace(": ", ":").replace("; ", ";"), text)
    # markers of one look take it from the group that they are alone in
    return _ALIKE.sub(lambda m: f"<g{m[1]}{m[3]}>{m[2].replace(m[3], '')}</g>", text)
