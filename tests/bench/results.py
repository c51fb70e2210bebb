# SPDX-License-Identifier: BSD-2-Clause
"""Rows, their figures, ratios and goals; and the JSON they are kept in.

A row is one line of the table: a figure for each system, from repetitions. `better` says which way is good, and every ratio is made so
that more than 1 is in favour of vclonefs. A goal is a ratio against peers or a limit on our own median.
"""
import json
import statistics
from dataclasses import dataclass, field

OURS = "vclonefs"


@dataclass
class Goal:
    """ratio: at least `bound` times as good as the best of `peers`; otherwise the median is at most (or at least) `bound`."""
    text: str
    bound: float
    peers: tuple = ()
    at_least: bool = False


@dataclass
class Row:
    id: str
    title: str
    unit: str
    better: str                     # "higher" or "lower"
    goals: list = field(default_factory=list)
    note: str = ""                  # what exactly is measured


class Results:
    def __init__(self):
        self.rows = {}
        self.figures = {}  # (row, system): list of {"value":, ...}
        self.reasons = {}  # (row, system): why there is none
        self.series = []
        self.seconds = {}  # of each group of rows

    def declare(self, rows):
        for row in rows:
            self.rows[row.id] = row

    def add(self, row, system, value, **beside):
        self.figures.setdefault((row, system), []).append({"value": value, **beside})

    def missing(self, row, system, reason):
        self.reasons.setdefault((row, system), reason)

    def add_series(self, id, title, x, y, lines, log_x=True, log_y=True):
        """lines: label -> list of (x, y), which can be added to by calling again."""
        for s in self.series:
            if s["id"] == id:
                for label, points in lines.items():
                    s["lines"].setdefault(label, []).extend(points)
                return
        self.series.append({"id": id, "title": title, "x": x, "y": y, "log_x": log_x, "log_y": log_y,
                            "lines": {k: list(v) for k, v in lines.items()}})

    # ---- what follows from the figures ----

    def summary(self, row, system):
        samples = self.figures.get((row, system))
        if not samples:
            return {"reason": self.reasons.get((row, system), "not measured")}
        out = {"median": statistics.median(s["value"] for s in samples), "min": min(s["value"] for s in samples),
               "max": max(s["value"] for s in samples), "values": [s["value"] for s in samples]}
        for key in sorted({k for s in samples for k in s} - {"value"}):
            values = [s[key] for s in samples if s.get(key) is not None]
            if values and all(isinstance(v, (int, float)) for v in values):
                out[key] = statistics.median(values)
            elif values:
                out[key] = values[-1]
        if (row, system) in self.reasons:
            out["trouble"] = self.reasons[row, system]
        return out

    @staticmethod
    def ratio(better, ours, theirs):
        if ours["median"] == theirs["median"]:
            return 1.0
        a, b = (ours, theirs) if better == "higher" else (theirs, ours)
        return a["median"] / b["median"] if b["median"] else None

    def verdict(self, row, goal, figures):
        ours = figures.get(OURS, {})
        out = {"goal": goal.text, "bound": goal.bound, "peers": list(goal.peers), "value": None, "met": None}
        if "median" not in ours:
            out["why"] = "vclonefs: " + ours.get("reason", "not measured")
            return out
        if not goal.peers:
            out["value"] = ours["median"]
            out["met"] = out["value"] >= goal.bound if goal.at_least else out["value"] <= goal.bound
            return out
        ratios = {p: self.ratio(row.better, ours, figures[p]) for p in goal.peers if "median" in figures.get(p, {})}
        ratios = {p: r for p, r in ratios.items() if r is not None}
        lacking = [p for p in goal.peers if p not in ratios]
        if ratios:
            out["value"] = min(ratios.values())
            out["met"] = out["value"] >= goal.bound
        if lacking:
            out["why"] = "not measured: " + ", ".join(lacking)
            out["met"] = out["met"] if out["met"] is False else None
        return out

    def row_json(self, row, systems):
        figures = {s: self.summary(row.id, s) for s in systems if (row.id, s) in self.figures or (row.id, s) in self.reasons}
        ours = figures.get(OURS, {})
        ratios = {s: self.ratio(row.better, ours, f) for s, f in figures.items()
                  if s != OURS and "median" in f and "median" in ours}
        return {"id": row.id, "title": row.title, "unit": row.unit, "better": row.better, "note": row.note,
                "figures": figures, "ratios": ratios, "goals": [self.verdict(row, g, figures) for g in row.goals]}

    def to_json(self, systems):
        return {"rows": [self.row_json(r, systems) for r in self.rows.values()], "series": self.series,
                "seconds_by_group": self.seconds}


def save(path, data):
    with open(path, "w") as f:
        json.dump(data, f, indent=1)
        f.write("\n")


# ---- for people ----

def human(value, unit):
    """A figure with its unit, three digits."""
    if value is None:
        return "-"
    steps = {"B": (1024, ("B", "KiB", "MiB", "GiB", "TiB")), "B/s": (1000, ("B/s", "kB/s", "MB/s", "GB/s")),
             "us": (1000, ("us", "ms", "s")), "IOPS": (1000, ("IOPS", "kIOPS", "MIOPS")), "s": (1e9, ("s",))}
    base, names = steps.get(unit, (1e99, (unit,)))
    for name in names:
        if abs(value) < base or name == names[-1]:
            break
        value /= base
    digits = f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    return f"{digits} {name}" if name not in ("x", "%") else f"{digits}{name}"


def verdict_text(goal, unit):
    met = {True: "yes", False: "NO", None: "not known"}[goal["met"]]
    value = goal["value"]
    shown = "" if value is None else (f"{value:.2f}x, " if goal["peers"] else f"{human(value, unit)}, ")
    return f"goal {goal['goal']}: {shown}{met}" + (f" ({goal['why']})" if goal.get("why") else "")


def row_text(row):
    """The lines of one row for the terminal."""
    lines = [f"{row['id']}: {row['title']}"]
    for system, f in row["figures"].items():
        if "median" not in f:
            lines.append(f"    {system:<10} not measured: {f['reason']}")
            continue
        text = f"    {system:<10} {human(f['median'], row['unit']):>12}"
        if len(f["values"]) > 1:
            text += f"  [{human(f['min'], row['unit'])} .. {human(f['max'], row['unit'])}]"
        if system in row["ratios"] and row["ratios"][system] is not None:
            text += f"  we are {row['ratios'][system]:.2f}x"
        if "daemon_cpu_us" in f:
            text += f"  daemon {f['daemon_cpu_us']:.1f} us CPU/op"
        if "machine_cpu_us" in f:
            text += f"  machine {f['machine_cpu_us']:.1f}"
        lines.append(text)
    lines += ["    " + verdict_text(g, row["unit"]) for g in row["goals"]]
    return "\n".join(lines)
