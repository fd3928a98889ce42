"""The result: lines, their tables as text and as Markdown, and the JSON file.

A line has the values of one program in one case. `ratio` is nsexec's median divided by this program's. `target`
limits the ratio, or without one the value; it is an upper limit, unless it is ("min", NUMBER).
"""

import json

from measure import median, p95

HEADINGS = ["case", "program", "median", "p95", "ratio", "target", ""]


class Line:
    def __init__(self, group, case, name, values, unit, ratio=None, target=None):
        self.group, self.case, self.name, self.unit = group, case, name, unit
        self.median, self.p95, self.count = median(values), p95(values), len(values)
        self.ratio, self.target = ratio, target

    def limit(self):
        return self.target[1] if isinstance(self.target, tuple) else self.target

    def is_lower_limit(self):
        return isinstance(self.target, tuple)

    def shown_limit(self):
        return number(self.limit()) if self.ratio is None else f"{self.limit():.2f}"

    def verdict(self):
        """Returns "reached", "missed", or nothing without a target."""
        if self.target is None:
            return ""
        value = self.median if self.ratio is None else self.ratio
        # Compared as printed.
        value = round(value, 2)
        reached = value >= self.limit() if self.is_lower_limit() else value <= self.limit()
        return "reached" if reached else "missed"

    def cells(self):
        sign = "≥" if self.is_lower_limit() else "≤"
        return [
            self.case,
            self.name,
            f"{number(self.median)} {self.unit}".rstrip(),
            number(self.p95) if self.count > 1 else "",
            "" if self.ratio is None else f"{self.ratio:.2f}",
            "" if self.target is None else f"{sign} {self.shown_limit()}",
            self.verdict(),
        ]

    def as_json(self):
        return {
            "group": self.group, "case": self.case, "program": self.name, "unit": self.unit, "count": self.count,
            "median": self.median, "p95": self.p95, "ratio": self.ratio, "target": self.limit(),
            "target_is": self.target and ("lower limit" if self.is_lower_limit() else "upper limit"),
            "verdict": self.verdict() or None,
        }


def number(value):
    """Three significant digits, or all digits of a larger number."""
    if isinstance(value, int) or float(value).is_integer() or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"


def table(lines):
    """The lines as text in columns."""
    rows = [HEADINGS] + [line.cells() for line in lines]
    widths = [max(len(row[at]) for row in rows) for at in range(len(HEADINGS))]
    left = (0, 1, 6)
    out, case = [], None
    for row in rows:
        row, case = [row[0] if row[0] != case else "", *row[1:]], row[0]
        cells = [cell.ljust(width) if at in left else cell.rjust(width)
                 for at, (cell, width) in enumerate(zip(row, widths, strict=True))]
        out.append("   " + "  ".join(cells).rstrip())
    return "\n".join(out)


def markdown(groups, facts):
    """All groups as Markdown, for docs/performance.md."""
    out = ["| of this run | |", "|---|---|"]
    out += [f"| {name} | {value} |" for name, value in facts.items()]
    for group, lines in groups.items():
        out += ["", f"### {group[0].upper()}{group[1:]}", "", f"| {' | '.join(HEADINGS[:-1])} | |", "|---|---|---:|---:|---:|---:|---|"]
        out += [f"| {' | '.join(line.cells())} |" for line in lines]
    return "\n".join(out) + "\n"


def save(path, groups, facts, missing, failed):
    result = {
        "facts": facts,
        "not_installed": missing,
        "failed": failed,
        "lines": [line.as_json() for lines in groups.values() for line in lines],
    }
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
