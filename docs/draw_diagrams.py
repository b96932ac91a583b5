"""Draw the diagrams of ``how_it_works.md``.

Run ``python docs/draw_diagrams.py``; it writes ``docs/diagram_*.svg``. They are narrow,
so that they can be read on a telephone, and bring their own light ground, so that they
can be read on a dark page.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

__all__ = ["main"]

FOLDER = Path(__file__).parent
WIDTH = 480

#: Fill of boxes: what a user meets, what works below, what is kept, what is plain.
FACE, WORK, KEPT, PLAIN = "#d6e6f2", "#fbe3d3", "#dff0e3", "#f2f2f2"

#: Floors from the roof down, and the rooms on each. A room of a later version is added
#: here: distributed on a floor of its own below cli; retrieval and fine_tuning on 4.
FLOORS = [
    ("8", ["cli"], FACE),
    ("7", ["distributed"], FACE),
    ("6", ["evaluation"], FACE),
    ("5", ["model_selection"], FACE),
    ("4", ["zero_shot", "heads"], FACE),
    ("4", ["retrieval", "fine_tuning"], FACE),
    ("3", ["prompts"], FACE),
    ("2", ["embedding"], FACE),
    ("1", ["images", "encoder", "cache"], WORK),
    ("0", ["datasets", "exceptions", "checks, splits, resampling"], PLAIN),
]


class Sheet:
    """SVG that grows by boxes, texts and arrows."""

    def __init__(self, height: int, title: str) -> None:
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
            f'width="{WIDTH}" height="{height}" role="img" '
            f'font-family="system-ui, sans-serif" font-size="14">',
            f"<title>{escape(title)}</title>",
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" '
            'markerWidth="7" markerHeight="7" orient="auto">'
            '<path d="M0 0 8 4 0 8z" fill="#444"/></marker></defs>',
            f'<rect width="{WIDTH}" height="{height}" rx="10" fill="#fff"/>',
        ]

    def box(self, x, y, width, height, lines, fill, *, dashed=False) -> None:
        """Draw a box with lines of text in its middle; the first is bold."""
        dash = ' stroke-dasharray="4 3"' if dashed else ""
        self.parts.append(
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6" '
            f'fill="{fill}" stroke="#777"{dash}/>'
        )
        top = y + height / 2 - 9 * (len(lines) - 1) + 5
        for number, line in enumerate(lines):
            weight = "600" if number == 0 else "400"
            size = 14 if number == 0 else 12
            self.text(x + width / 2, top + 18 * number, line, weight=weight, size=size)

    def text(self, x, y, words, *, anchor="middle", weight="400", size=12) -> None:
        """Write one line."""
        self.parts.append(
            f'<text x="{x}" y="{y}" text-anchor="{anchor}" font-weight="{weight}" '
            f'font-size="{size}" fill="#222">{escape(words)}</text>'
        )

    def arrow(self, x1, y1, x2, y2, *, dashed=False) -> None:
        """Draw a line with a tip."""
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self.parts.append(
            f'<path d="M{x1} {y1} L{x2} {y2}" stroke="#444" stroke-width="1.6" '
            f'fill="none" marker-end="url(#tip)"{dash}/>'
        )

    def add(self, part: str) -> None:
        """Add SVG as it is."""
        self.parts.append(part)

    def save(self, name: str) -> None:
        """Write the file."""
        path = FOLDER / f"diagram_{name}.svg"
        path.write_text("\n".join([*self.parts, "</svg>"]) + "\n", encoding="utf-8")


def draw_house() -> None:
    """Draw floors and rooms."""
    high, gap, top = 40, 10, 44
    sheet = Sheet(
        top + len(FLOORS) * (high + gap) + 30,
        "Rooms of the package on their floors; each imports only from floors below",
    )
    sheet.text(70, 28, "floor", size=12)
    sheet.text(280, 28, "a user's code imports from any of these", size=12)
    for number, (floor, rooms, fill) in enumerate(FLOORS):
        y = top + number * (high + gap)
        sheet.text(70, y + high / 2 + 5, floor, weight="600", size=14)
        width = (370 - 8 * (len(rooms) - 1)) / len(rooms)
        for place, room in enumerate(rooms):
            name = room if " " in room else f"{room}/"
            x = 95 + place * (width + 8)
            if len(name) > 20:
                first, second = name.split(", ", 1)
                sheet.box(x, y, width, high, [f"{first},", second], fill)
            else:
                sheet.box(x, y, width, high, [name], fill)
    bottom = top + len(FLOORS) * (high + gap)
    sheet.arrow(28, top + 4, 28, bottom - 14)
    sheet.add(
        f'<text x="18" y="{(top + bottom) / 2}" font-size="12" fill="#222" '
        f'text-anchor="middle" transform="rotate(-90 18 {(top + bottom) / 2})">'
        "imports only downward</text>"
    )
    sheet.text(
        280,
        bottom + 16,
        "blue: sklearn estimators and tools; orange: where work is done",
    )
    sheet.save("house")


def draw_cache_key() -> None:
    """Draw what a row is known by, and the short way of a warm run."""
    sheet = Sheet(
        470, "From an image to the key of its row, and the short way of a warm run"
    )
    sheet.box(
        20, 20, 270, 52, ["an image", "path, DICOM, URL, PIL, array, bytes"], FACE
    )
    sheet.arrow(155, 72, 155, 102)
    sheet.box(
        20,
        104,
        270,
        52,
        ["read, brighten, resize", "intensity, frame, resize, pad"],
        WORK,
    )
    sheet.arrow(155, 156, 155, 186)
    sheet.box(
        20,
        188,
        270,
        52,
        ["pixels at the model's size", "448 x 448, RGB, 8 bits"],
        PLAIN,
    )
    sheet.arrow(155, 240, 155, 270)
    sheet.box(20, 272, 270, 38, ["fingerprint: blake3 of them"], KEPT)
    sheet.box(
        310,
        104,
        150,
        136,
        ["state of a file", "hash of its path,", "inode, size,", "times, recipe"],
        KEPT,
    )
    sheet.arrow(290, 46, 385, 102, dashed=True)
    sheet.arrow(385, 240, 292, 288, dashed=True)
    sheet.text(398, 262, "a warm run", size=12)
    sheet.text(398, 278, "opens no file", size=12)
    sheet.text(155, 330, "+", weight="600", size=16)
    sheet.box(20, 340, 128, 44, ["model,", "revision"], PLAIN)
    sheet.box(162, 340, 128, 44, ["numeric type,", "engine"], PLAIN)
    sheet.arrow(155, 388, 155, 414)
    sheet.box(20, 416, 270, 38, ["the key of one row"], KEPT)
    sheet.arrow(290, 435, 322, 435)
    sheet.box(324, 408, 136, 54, ["1152 numbers", "raw, float32"], KEPT)
    sheet.save("cache_key")


def draw_recipes() -> None:
    """Draw what each recipe makes of a picture that is wider than high."""
    sheet = Sheet(318, "What the recipes make of a picture that is wider than high")
    sheet.text(240, 26, "a picture, 3 to 2, and what the model sees of it", size=13)
    sheet.add(_picture(165, 38, 150, 100, bars=0))
    columns = [
        (
            30,
            "squeezed",
            ['resize="medsiglip"', "bilinear, as in Google's", "evaluations"],
        ),
        (185, "squeezed", ['resize="processor"', "bicubic, as in", "transformers"]),
        (340, "padded", ["pad=True", "black first, either", "resize after it"]),
    ]
    for x, how, words in columns:
        sheet.arrow(240, 140, x + 55, 158)
        sheet.add(
            _picture(
                x,
                162,
                110,
                110 if how == "squeezed" else 73.3,
                bars=0 if how == "squeezed" else 18.35,
            )
        )
        for number, line in enumerate(words):
            sheet.text(
                x + 55,
                288 + 14 * number,
                line,
                size=11,
                weight="400" if number else "600",
            )
    sheet.save("recipes")


def _picture(x: float, y: float, width: float, height: float, *, bars: float) -> str:
    """Return a thorax in a frame, with black above and below where it was padded."""
    whole = height + 2 * bars
    frame = f'<rect x="{x}" y="{y}" width="{width}" height="{whole}" fill="#000"/>'
    top = y + bars
    lungs = "".join(
        f'<ellipse cx="{x + width * cx}" cy="{top + height * 0.5}" '
        f'rx="{width * 0.15}" ry="{height * 0.33}" fill="#555"/>'
        for cx in (0.3, 0.7)
    )
    return (
        f'{frame}<rect x="{x}" y="{top}" width="{width}" height="{height}" '
        f'fill="#b8b8b8"/>{lungs}<ellipse cx="{x + width * 0.54}" '
        f'cy="{top + height * 0.6}" rx="{width * 0.14}" ry="{height * 0.17}" '
        f'fill="#dcdcdc"/><rect x="{x}" y="{y}" width="{width}" height="{whole}" '
        'fill="none" stroke="#444"/>'
    )


def draw_solver() -> None:
    """Draw all folds, penalties and labels as columns of one matrix."""
    sheet = Sheet(372, "All folds, penalties and labels are columns of one matrix")
    sheet.box(20, 20, 440, 40, ["X, turned into the eigenbasis of X'X, once"], FACE)
    sheet.arrow(105, 60, 105, 88)
    sheet.add(
        '<rect x="60" y="92" width="90" height="110" fill="#d6e6f2" stroke="#777"/>'
    )
    sheet.text(105, 145, "X", weight="600", size=18)
    sheet.text(105, 164, "images", size=11)
    sheet.text(170, 152, "x", size=18)
    sheet.text(212, 84, "W", weight="600", size=14)
    sheet.text(340, 84, "logits", weight="600", size=14)
    shades = ["#fbe3d3", "#f6cdb0", "#dff0e3", "#bfe0c8"]
    for number in range(12):
        fill = shades[number // 3]
        sheet.add(
            f'<rect x="{188 + 6 * number}" y="115" width="6" height="60" fill="{fill}" '
            'stroke="#999" stroke-width=".6"/>'
        )
        sheet.add(
            f'<rect x="{304 + 6 * number}" y="92" width="6" height="110" fill="{fill}" '
            'stroke="#999" stroke-width=".6"/>'
        )
    sheet.text(282, 152, "=", size=18)
    sheet.text(240, 222, "a column: one fold, one penalty, one label", size=12)
    sheet.arrow(240, 230, 240, 254)
    sheet.box(
        20,
        256,
        440,
        60,
        [
            "a step: two matrix products for all columns",
            "logits forward, gradients back; each column its own length",
        ],
        WORK,
    )
    sheet.arrow(240, 316, 240, 330)
    sheet.text(
        240, 350, "columns that are done leave; left-out rows are scored", size=12
    )
    sheet.text(240, 366, "from logits that are there already", size=12)
    sheet.save("solver")


def main() -> None:
    """Draw all of them."""
    draw_house()
    draw_cache_key()
    draw_recipes()
    draw_solver()


if __name__ == "__main__":
    main()
