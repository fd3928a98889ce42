"""The chart: a bar for each ratio with a target, and a mark at the target.

A bar has the length of ratio/target, so that one vertical line is the target of all rows.
"""

from xml.sax.saxutils import escape

LABELS, BARS, ROW, HEAD = 330, 430, 20, 64
# The largest ratio/target that is drawn in full.
MOST = 3.0


def svg(groups, title):
    """Returns the picture of all lines with a target that is not 0."""
    rows = [line for lines in groups.values() for line in lines if line.target is not None and line.limit()]
    width, height = LABELS + BARS + 190, HEAD + ROW * len(rows) + 16
    target = LABELS + BARS / MOST
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="12" y="22" font-size="15">{escape(title)}</text>',
        '<text x="12" y="42" fill="#555555">A bar is the measured value divided by its target; shorter is faster. '
        "The line is the target.</text>",
    ]
    for at, line in enumerate(rows):
        out += bar(line, HEAD + ROW * at)
    out.append(f'<line x1="{target:.1f}" y1="{HEAD - 6}" x2="{target:.1f}" y2="{height - 8}" stroke="#222222" stroke-width="1.5"/>')
    out.append("</svg>")
    return "\n".join(out) + "\n"


def bar(line, top):
    value = line.median if line.ratio is None else line.ratio
    part = line.limit() / value if line.is_lower_limit() and value else value / line.limit()
    length = min(part, MOST) * BARS / MOST
    colour = "#3b7dd8" if line.verdict() == "reached" else "#d9822b"
    _, _, shown, _, ratio, target, _ = line.cells()
    label = f"{line.group} {line.case}: {line.name}" if line.ratio is not None else f"{line.group}: {line.case}"
    return [
        f'<text x="{LABELS - 8}" y="{top + 13}" text-anchor="end">{escape(label)}</text>',
        f'<rect x="{LABELS}" y="{top + 2}" width="{length:.1f}" height="{ROW - 6}" fill="{colour}"/>',
        f'<text x="{LABELS + BARS + 8}" y="{top + 13}">{escape(ratio or shown)} ({escape(target)})</text>',
    ]
