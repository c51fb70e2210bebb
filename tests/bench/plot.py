# SPDX-License-Identifier: BSD-2-Clause
"""Plots as SVG, written by hand: bars with their range for rows, lines for what depends on a size. Text is black on white or, by the
reader's preference, light on dark; every colour has its label beside it."""
import math
from html import escape

from results import human

COLOURS = ("#1f77b4", "#7f7f7f", "#2ca02c", "#98a830", "#d9822b", "#b5446e", "#7b5ea7")
STYLE = ("<style>text{font:12px sans-serif;fill:#222}.t{font-weight:bold}.s{font-size:10px}.f{fill:none;stroke:#999}"
         ".bg{fill:#fff}@media(prefers-color-scheme:dark){text{fill:#ddd}.bg{fill:#1b1b1b}}</style>")
PANEL_W, PANEL_H = 430, 190
COLUMNS = 2


def svg(width, height, body):
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
            f'{STYLE}<rect class="bg" width="{width}" height="{height}"/>\n' + "\n".join(body) + "\n</svg>\n")


def text(x, y, content, kind="", anchor="start"):
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(content)}</text>'


def bar_panel(row, titles):
    """Horizontal bars, one a system, with a line from the least to the greatest value."""
    shown = [(s, f) for s, f in row["figures"].items() if "median" in f]
    title = row["title"] if len(row["title"]) < 62 else row["title"][:60] + "..."
    out = [text(8, 18, title, "t"), text(8, 33, ("more" if row["better"] == "higher" else "less") + " is better", "s")]
    top = max((f["max"] for _, f in shown), default=0) or 1
    left, room = 120, PANEL_W - 120 - 95
    for i, (system, f) in enumerate(shown):
        y = 44 + i * 23
        colour = COLOURS[list(titles).index(system) % len(COLOURS)]
        width = max(f["median"] / top * room, 1)
        out.append(text(left - 6, y + 12, titles[system], "s", "end"))
        out.append(f'<rect x="{left}" y="{y}" width="{width:.1f}" height="16" fill="{colour}"/>')
        out.append(f'<path class="f" style="stroke:#000" d="M{left + f["min"] / top * room:.1f} {y + 8}H{left + f["max"] / top * room:.1f}"/>')
        out.append(text(left + f["max"] / top * room + 5, y + 12, human(f["median"], row["unit"]), "s"))
    return out


class Axis:
    def __init__(self, values, log, start, end):
        self.log = log and min(values) > 0
        low, high = min(values), max(values)
        if self.log:
            self.low, self.high = math.floor(math.log10(low)), math.ceil(math.log10(high))
            if self.low == self.high:
                self.high += 1
        else:
            self.low, self.high = min(low, 0), high * 1.05 or 1
        self.start, self.end = start, end

    def at(self, value):
        v = math.log10(value) if self.log else value
        return self.start + (v - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self):
        if self.log:
            step = max(1, math.ceil((self.high - self.low) / 6))
            return [10.0 ** e for e in range(self.low, self.high + 1, step)]
        return [self.low + (self.high - self.low) * i / 4 for i in range(5)]


def median_points(points):
    """One point an x: the median of its y."""
    by_x = {}
    for x, y in points:
        by_x.setdefault(x, []).append(y)
    return [(x, sorted(ys)[len(ys) // 2]) for x, ys in sorted(by_x.items())]


def line_panel(series):
    lines = {k: median_points([(x, y) for x, y in v if x > 0 or not series["log_x"]]) for k, v in series["lines"].items()}
    lines = {k: v for k, v in lines.items() if v}
    out = [text(8, 18, series["title"], "t")]
    if not lines:
        return out
    xs = Axis([x for v in lines.values() for x, _ in v], series["log_x"], 60, PANEL_W - 120)
    ys = Axis([y for v in lines.values() for _, y in v], series["log_y"], PANEL_H - 35, 30)
    out.append(f'<path class="f" d="M60 30V{PANEL_H - 35}H{PANEL_W - 120}"/>')
    for x in xs.ticks():
        out.append(text(xs.at(x), PANEL_H - 20, f"{x:g}", "s", "middle"))
    for y in ys.ticks():
        out.append(text(56, ys.at(y) + 4, f"{y:.6g}", "s", "end"))
    out.append(text((PANEL_W - 60) / 2, PANEL_H - 6, f"{series['x']}; vertical: {series['y']}", "s", "middle"))
    for i, (label, points) in enumerate(lines.items()):
        colour = COLOURS[i % len(COLOURS)]
        path = "L".join(f"{xs.at(x):.1f} {ys.at(y):.1f}" for x, y in points)
        out.append(f'<path fill="none" stroke="{colour}" stroke-width="2" d="M{path}"/>')
        out += [f'<circle cx="{xs.at(x):.1f}" cy="{ys.at(y):.1f}" r="2.5" fill="{colour}"/>' for x, y in points]
        out.append(f'<rect x="{PANEL_W - 112}" y="{32 + 16 * i}" width="10" height="10" fill="{colour}"/>')
        out.append(text(PANEL_W - 98, 41 + 16 * i, label, "s"))
    return out


def grid(panels):
    rows = -(-len(panels) // COLUMNS)
    body = []
    for i, panel in enumerate(panels):
        x, y = i % COLUMNS * PANEL_W, i // COLUMNS * PANEL_H
        body.append(f'<g transform="translate({x} {y})">' + "".join(panel) + "</g>")
    return svg(COLUMNS * PANEL_W, rows * PANEL_H, body)


def write_all(base, data):
    """The plots of one result; the names of the files."""
    titles = {n: s["title"] for n, s in data["systems"].items()}
    rows = [r for r in data["rows"] if sum("median" in f for f in r["figures"].values()) > 1]
    out = []
    for suffix, panels in (("rows", [bar_panel(r, titles) for r in rows]), ("series", [line_panel(s) for s in data["series"]])):
        if panels:
            out.append(f"{base}-{suffix}.svg")
            with open(out[-1], "w") as f:
                f.write(grid(panels))
    return out
