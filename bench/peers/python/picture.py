"""The columns of a CSV over its first one, seconds, as one SVG, one below the other: `bench/soak` starts it.

    picture.py CSV SVG
"""

import csv
import sys
from html import escape

WIDTH, HEIGHT, LEFT, TOP, GAP = 860, 84, 110, 34, 26
# A point for each pixel is all that can be seen; of the seconds behind one, the least and the most are drawn.
POINTS = 700


def extremes(values):
    """Index and value of the least and the most of each stretch, in order."""
    stretch = max(1, -(-len(values) // (POINTS // 2)))
    for start in range(0, len(values), stretch):
        part = range(start, min(start + stretch, len(values)))
        for index in sorted({min(part, key=values.__getitem__), max(part, key=values.__getitem__)}):
            yield index, values[index]


def panel(number, name, seconds, values):
    top = TOP + number * (HEIGHT + GAP)
    # From zero, so that a wave of a tenth looks like one.
    most = max(values) or 1
    points = " ".join(
        f"{LEFT + WIDTH * seconds[index] / seconds[-1]:.1f},{top + HEIGHT * (1 - value / most):.1f}" for index, value in extremes(values)
    )
    yield f'<text x="{LEFT - 8}" y="{top + HEIGHT / 2}" text-anchor="end" font-weight="bold">{escape(name.replace("_", " "))}</text>'
    yield f'<text x="{LEFT - 8}" y="{top + 10}" text-anchor="end">{round(max(values), 1):g}</text>'
    yield f'<text x="{LEFT - 8}" y="{top + HEIGHT}" text-anchor="end">0</text>'
    yield f'<rect x="{LEFT}" y="{top}" width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#ccc"/>'
    yield f'<polyline points="{points}" fill="none" stroke="#1f6feb" stroke-width="1.2"/>'


def picture(names, columns):
    seconds = columns[0]
    height = TOP + (len(columns) - 1) * (HEIGHT + GAP) + 10
    width = LEFT + WIDTH + 20
    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12" fill="#444">'
    yield f'<rect width="{width}" height="{height}" fill="#fff"/>'
    yield f'<text x="{LEFT}" y="20">{seconds[-1] / 60:.0f} minutes, a sample each second; each scale begins at 0</text>'
    for number, (name, values) in enumerate(zip(names[1:], columns[1:])):
        yield from panel(number, name, seconds, values)
    yield "</svg>"


source, target = sys.argv[1:]
with open(source, newline="") as file:
    names, *rows = csv.reader(file)
columns = [[float(field) for field in column] for column in zip(*rows)]
with open(target, "w") as file:
    file.write("\n".join(picture(names, columns)) + "\n")
