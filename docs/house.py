"""Draw the house from the package's imports: `python -m docs.house` writes docs/pages/house.svg.

Rows and columns are rooms, from the top floor down; a dot says that the row's room imports from the column's. Names and
what a room is for come from the table in docs/pages/architecture.md, floors and imports from
tests/project/test_floors.py.
"""

import re
from collections import Counter
from html import escape
from pathlib import Path

from tests.project.test_floors import FILES, ROOMS, imports, module_name, parse, room

PAGES = Path(__file__).parent / "pages"
GROUND = "the ground"
ROW, CELL, LEFT, TOP = 32, 21, 214, 76


def describe_rooms() -> dict[str, str]:
    """Read what each room is for from the table of floors; "the ground" is what has no room of its own."""
    table = (PAGES / "architecture.md").read_text("utf-8")
    rows = re.findall(r"^\| (\d+) \| (.*?) \| (.*?) \|", table, re.MULTILINE)
    purposes = {}
    for floor, names, purpose in rows:
        plain = re.sub(r"\[(.*?)\]\(.*?\)|`", r"\1", purpose).split(";")[0]
        purposes[GROUND if floor == "0" else re.findall(r"`(\w+)", names)[0]] = plain
    return purposes


def name_room(module: str) -> str:
    """Name the room of a module, such as "chargen.data.batches"."""
    name = room(module)
    return GROUND if ROOMS.get(name, 0) == 0 else name


def count_imports() -> Counter[tuple[str, str]]:
    """Count the modules of each room that import from each other room."""
    counts: Counter[tuple[str, str]] = Counter()
    for file in FILES:
        if "/" in file or file.removesuffix(".py") in ROOMS:
            importer = name_room(module_name(file))
            targets = {name_room(name) for name in imports(parse(file)) if name.startswith("chargen.")}
            counts.update((importer, target) for target in targets - {importer})
    return counts


def draw() -> str:
    """Draw the picture as SVG."""
    purposes, counts = describe_rooms(), count_imports()
    floors = {name: ROOMS[name] for name in purposes if name != GROUND} | {GROUND: 0}
    rooms = sorted(floors, key=lambda name: (-floors[name], name))
    right, bottom = LEFT + CELL * len(rooms) + 28, TOP + ROW * len(rooms) + 8
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {right} {bottom}" width="{right * 1.4:.0f}" '
        'font-family="system-ui, sans-serif" font-size="12" fill="#223">',
        "<title>Rooms by floor, and which imports from which: every arrow points down</title>",
        f'<rect width="{right}" height="{bottom}" rx="6" fill="#fff"/>',
    ]
    x: float
    y: float
    for number, name in enumerate(rooms):
        x, y = LEFT + CELL * number + CELL / 2, TOP + ROW * number
        parts.append(f'<text transform="translate({x + 4:.1f},{TOP - 6}) rotate(-60)" font-size="11">{name}</text>')
        if number % 2 == 0:
            parts.append(f'<rect x="4" y="{y}" width="{right - 8}" height="{ROW}" fill="#eef2f6"/>')
        parts.append(f'<text x="12" y="{y + 21}" fill="#789">{floors[name]}</text>')
        parts.append(f'<text x="30" y="{y + 14}" font-weight="bold">{name}</text>')
        parts.append(f'<text x="30" y="{y + 27}" font-size="9.5" fill="#556">{escape(purposes[name])}</text>')
        parts.append(f'<rect x="{x - 8:.1f}" y="{y + ROW / 2 - 8:.1f}" width="16" height="16" rx="3" fill="#cbd5df"/>')
    for (importer, target), count in sorted(counts.items()):
        if importer in floors:
            x = LEFT + CELL * rooms.index(target) + CELL / 2
            y = TOP + ROW * rooms.index(importer) + ROW / 2
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{min(3 + count**0.5, 8):.1f}" fill="#2f6f9f"/>')
    return "\n".join([*parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    (PAGES / "house.svg").write_text(draw(), "utf-8")
