#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""report.py: one result of bench.py or scale.py as Markdown, for doc/PERFORMANCE.md.

usage: report.py RESULT.json [RESULT.json ...]                print
       report.py --into doc/PERFORMANCE.md RESULT.json [...]  replace what stands between the marks of that file; with --add: put
                                                              it behind what stands there

The marks are the lines <!-- figures --> and <!-- end of figures -->. Nothing is computed here that is not in the JSON.
"""
import argparse
import json
import sys

sys.dont_write_bytecode = True

from results import OURS, human

BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"


def cell(text):
    return str(text).replace("|", "\\|").replace("\n", " ")


def table(header, rows):
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return lines + ["| " + " | ".join(cell(c) for c in row) + " |" for row in rows]


def figure(row, system, notes):
    f = row["figures"].get(system)
    if f is None:
        return ""
    if "median" not in f:
        if f["reason"] not in notes:
            notes.append(f["reason"])
        return f"not measured ({notes.index(f['reason']) + 1})"
    text = f"**{human(f['median'], row['unit'])}**" if system == OURS else human(f["median"], row["unit"])
    if len(f["values"]) > 1:
        text += f" ({human(f['min'], row['unit'])} .. {human(f['max'], row['unit'])})"
    ratio = row["ratios"].get(system)
    return text + (f", we: {ratio:.2f}x" if ratio else "")


def goal_text(row):
    words = {True: "yes", False: "**no**", None: "not known"}
    out = []
    for g in row["goals"]:
        value = "" if g["value"] is None else f" {g['value']:.2f}x" if g["peers"] else f" {human(g['value'], row['unit'])}"
        out.append(f"{g['goal']}:{value} {words[g['met']]}" + (f" ({g['why']})" if g.get("why") else ""))
    return "; ".join(out)


def cpu_text(row):
    f = row["figures"].get(OURS, {})
    if "daemon_cpu_us" not in f:
        return ""
    return f"{f['daemon_cpu_us']:.1f} / {f.get('machine_cpu_us', 0):.1f}" + (f" a {f['per']}" if "per" in f else "")


def machine_lines(data):
    m = data["machine"]
    versions = ", ".join(f"{k} {v}" for k, v in m["versions"].items() if v != "missing")
    return [f"Machine: {m['cpus']} processors ({m['cpu']}{', virtual' if m['virtual'] else ''}), "
            f"{human(m['memory_bytes'], 'B')} of memory, Linux {m['kernel']}, on {m['filesystem']}. Versions: {versions}.",
            f"Mode {data['mode']}, {data['repetitions']} repetitions, {data['seconds'] / 60:.1f} minutes."]


def bench_lines(data):
    systems = [s for s in data["systems"] if any(s in r["figures"] for r in data["rows"])]
    notes = []
    body = [[r["title"]] + [figure(r, s, notes) for s in systems] + [goal_text(r), cpu_text(r)] for r in data["rows"]]
    titles = [data["systems"][s]["title"] for s in systems]
    lines = ["Median (least .. greatest); \"we\": how many times as good vclonefs is. CPU: microseconds an operation, daemon / whole "
             "machine with client.", ""]
    lines += table(["row"] + titles + ["goal", "CPU of vclonefs"], body)
    lines += [""] + [f"({i + 1}) {n}" + ("  " if i + 1 < len(notes) else "") for i, n in enumerate(notes)]
    lines += ["", "Settings:", ""] + [f"- {v['title']}: {v['settings']}" for v in data["systems"].values()]
    golden = data["golden"]
    lines += ["", f"Golden image: {human(golden['bytes'], 'B')}, {golden['files']} files of the machine's /usr; "
              f"{human(golden['nonzero_bytes'], 'B')} are not zero, {human(golden['lz4_16k_bytes'], 'B')} in LZ4 units of 16 KiB."]
    return lines


def scale_lines(data):
    """A table for each thing that grows, a column for each figure of it."""
    lines = []
    for axis in dict.fromkeys(s["x"] for s in data["series"]):
        series = [s for s in data["series"] if s["x"] == axis]
        by = [dict(s["lines"][OURS]) for s in series]
        titles = [f"{s['title'].rsplit(', by', 1)[0]}, {s['y']}" for s in series]
        xs = sorted({x for points in by for x in points})
        body = [[f"{x:,.6g}"] + [f"{points[x]:,.4g}" if x in points else "" for points in by] for x in xs]
        lines += table([axis] + titles, body) + [""]
    growth = [[g["what"], f"{g['from']:,} to {g['to']:,}", f"{g['ratio']:.2f}x", f"{g['bound']:.2f}x",
               "yes" if g["met"] else "**no**"] for g in data["growth"]]
    return lines + table(["what grows", "size", "grew", "at most", "met"], growth)


def render(path):
    with open(path) as f:
        data = json.load(f)
    lines = machine_lines(data) + [""] + (scale_lines(data) if data["mode"] == "scale" else bench_lines(data))
    if data["trouble"]:
        lines += ["", "Trouble in this run:", ""] + [f"- {t}" for t in data["trouble"]]
    return "\n".join(lines)


def main():
    p = argparse.ArgumentParser(description="A benchmark's result as Markdown.")
    p.add_argument("--into", metavar="FILE", help="replace the figures in this file")
    p.add_argument("--add", action="store_true", help="with --into: keep the figures that are there, these come behind them")
    p.add_argument("results", nargs="+")
    options = p.parse_args()
    text = "\n\n".join(render(r) for r in options.results)
    if not options.into:
        print(text)
        return 0
    with open(options.into) as f:
        old = f.read()
    if old.count(BEGIN) != 1 or old.count(END) != 1:
        print(f"report: {options.into} has no marks {BEGIN} and {END}", file=sys.stderr)
        return 1
    keep = old.index(END) if options.add else old.index(BEGIN) + len(BEGIN)
    with open(options.into, "w") as f:
        f.write(old[:keep].rstrip() + "\n\n" + text + "\n\n" + old[old.index(END):])
    return 0


if __name__ == "__main__":
    sys.exit(main())
