"""The report: one HTML file that needs nothing else, with a timeline of each pod and the clients' losses on it."""

import html
import re
from datetime import UTC, datetime

from result import COLUMNS

WIDTH, LEFT, ROW = 1000, 190, 34
# More pods than this do not share an axis of time.
MANY = 12
VERDICTS = ("Drained", "DrainDeadlineExceeded", "DrainReleased", "DrainBlind")
STYLE = """
body { font: 14px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 1240px; padding: 0 1em; color: #1c2330 }
h1 { font-size: 22px } h2 { font-size: 16px; margin: 2em 0 .3em }
table { border-collapse: collapse; font-size: 13px } td, th { padding: 3px 10px; border-bottom: 1px solid #dde2ea;
text-align: left; vertical-align: top } td.n { text-align: right; font-variant-numeric: tabular-nums }
.ok { color: #1a7f4b } .failed { color: #c2262e; font-weight: 600 } .skipped { color: #8a6d1a }
svg { width: 100%; height: auto; display: block } svg text { font: 11px system-ui, sans-serif; fill: #49546a }
.key span { display: inline-block; margin-right: 1.4em } .key i { display: inline-block; width: 12px; height: 12px;
margin-right: 5px; vertical-align: -2px }
"""
COLOURS = {
    "ready": "#bfe3cd",
    "not ready": "#f3dfb4",
    "in flight": "#2c6fbb",
    "hook": "#7a3fb0",
    "verdict": "#1a7f4b",
    "SIGTERM": "#b0561a",
    "gone": "#1c2330",
    "lost": "#d4232b",
}


def write(folder, results, version):
    """Writes it and returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "report.html"
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    key = "".join(f'<span><i style="background:{colour}"></i>{name}</span>' for name, colour in COLOURS.items())
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>gracekeeper: end to end</title><style>{STYLE}</style>",
        f"<h1>gracekeeper on a real cluster</h1><p>{now}, Kubernetes {html.escape(version)}</p>",
        table(results),
        f"<p class=key>{key}</p>",
        *(section(result) for result in results if result.pods),
    ]
    path.write_text("\n".join(parts))
    return path


def table(results):
    rows = []
    for n, result in enumerate(results):
        *cells, last = [html.escape(cell) for cell in result.cells()]
        link = f'<a href="#s{n}">{cells[0]}</a>' if result.pods else cells[0]
        result.anchor = f"s{n}"
        numbers = "".join(f"<td class=n>{cell}</td>" for cell in cells[1:5])
        rows.append(f"<tr><td>{link}</td>{numbers}<td>{cells[5]}</td><td class={result.state}>{last}</td></tr>")
    head = "".join(f"<th>{column}</th>" for column in COLUMNS)
    return f"<table><tr>{head}</tr>{''.join(rows)}</table>"


def section(result):
    said = "; ".join(str(outcome) for outcome in result.outcomes)
    head = f'<h2 id="{result.anchor}">{html.escape(result.name)}</h2><p>{html.escape(said)}</p>'
    if len(result.pods) <= MANY:
        began = min(pod.seen for pod in result.pods)
        began = max([began, *(outcome.began - 2 for outcome in result.outcomes)])
        ended = max([last(pod) for pod in result.pods] + [outcome.ended for outcome in result.outcomes])
        return head + svg(result, result.pods, began, ended)
    # Each from shortly before it was asked to go.
    return head + "".join(svg(result, [pod], (pod.deleted or pod.seen) - 5, last(pod)) for pod in result.pods)


def last(pod):
    """When something was last seen of it."""
    return pod.gone or pod.readiness[-1][0]


def svg(result, pods, began, ended):
    """Rows with an axis of time."""

    def x(at):
        return LEFT + (min(max(at, began), ended) - began) / max(ended - began, 1) * (WIDTH - LEFT - 10)

    lost = [one for outcome in result.outcomes for one in outcome.lost]
    named = {pod.name for pod in pods}
    others = [one for one in lost if one["pod"] not in named and began <= one["ended"] / 1000 <= ended]
    height = ROW * (len(pods) + bool(others)) + 24
    parts = [f'<svg viewBox="0 0 {WIDTH} {height}" role=img>']
    step = next(step for step in (1, 2, 5, 10, 30, 60, 300, 600, 3600) if (ended - began) / step <= 14)
    for second in range(0, int(ended - began) + 1, step):
        at = x(began + second)
        parts.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="0" y2="{height - 20}" stroke="#e6eaf0"/>'
                     f'<text x="{at:.1f}" y="{height - 6}" text-anchor="middle">{second} s</text>')
    for row, pod in enumerate(pods):
        parts.append(lane(result, pod, row * ROW, x, ended))
        parts += marks([one for one in lost if one["pod"] == pod.name], row * ROW, x)
    if others:
        row = len(pods) * ROW
        parts.append(f'<text x="4" y="{row + 18}">other losses</text>')
        parts += marks(others, row, x)
    return "".join(parts) + "</svg>"


def lane(result, pod, y, x, ended):
    """A pod's life: its readiness as a band, what it had in flight as a curve on it, and what happened as marks."""
    parts = [f'<text x="4" y="{y + 18}">{html.escape(pod.name[-24:])}</text>']
    until = pod.gone or ended
    for (at, ready), (end, _) in zip(pod.readiness, [*pod.readiness[1:], (until, None)]):
        colour = COLOURS["ready" if ready else "not ready"]
        parts.append(f'<rect x="{x(at):.1f}" y="{y + 4}" width="{max(x(end) - x(at), 0):.1f}" height="{ROW - 8}" '
                     f'fill="{colour}"/>')
    parts.append(curve(result, pod, y, x))
    for name, at, words in moments(result, pod):
        parts.append(f'<line x1="{x(at):.1f}" x2="{x(at):.1f}" y1="{y + 2}" y2="{y + ROW - 2}" stroke-width="2" '
                     f'stroke="{COLOURS[name]}"><title>{html.escape(words)}</title></line>')
    return "".join(parts)


def curve(result, pod, y, x):
    """What each load had in flight at the pod."""
    loads = [changes for outcome in result.outcomes if (changes := outcome.inflight(pod))]
    if not loads:
        return ""
    most = max(n for changes in loads for _, n in changes) or 1
    lines = []
    for changes in loads:
        points, before = [], 0
        for at, n in changes:
            # What came before the axis begins is told by the last of it.
            for level in (before, n) if x(at / 1000) > LEFT else ():
                points.append(f"{x(at / 1000):.1f},{y + ROW - 5 - level / most * (ROW - 12):.1f}")
            before = n
        lines.append(f'<polyline points="{" ".join(points)}" fill="none" stroke="{COLOURS["in flight"]}"/>')
    return "".join(lines) + f'<text x="{LEFT - 6}" y="{y + 18}" text-anchor="end">≤ {most}</text>'


def moments(result, pod):
    """What happened to a pod, when, and in words."""
    kinds = {"DrainStarted": "hook", "RequestsCut": "lost", **dict.fromkeys(VERDICTS, "verdict")}
    for event in result.events:
        kind = kinds.get(event["reason"])
        if kind and event["regarding"]["name"] == pod.name:
            yield kind, datetime.fromisoformat(event["eventTime"]).timestamp(), event["note"]
    for status in pod.containers():
        message = pod.last_words(status["name"]) or ""
        if found := re.search(r"SIGTERM at (\d+)", message):
            yield "SIGTERM", int(found[1]) / 1000, message
    if pod.deleted:
        yield "hook", pod.deleted, "asked to go"
    if pod.gone:
        yield "gone", pod.gone, f"gone {pod.took or 0:.1f} s after it was asked to go"


def marks(lost, y, x):
    for one in lost:
        at = x(one["ended"] / 1000)
        words = f'{one["lost"]}, {(one["ended"] - one["began"]) / 1000:.1f} s after it was sent'
        yield (f'<circle cx="{at:.1f}" cy="{y + ROW / 2}" r="3.5" fill="{COLOURS["lost"]}" fill-opacity=".7">'
               f"<title>{html.escape(words)}</title></circle>")
