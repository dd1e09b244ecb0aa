"""Draw the losses of a run: `python docs/curve.py checkpoints/novel/metrics.jsonl curve.svg`."""

import json
import math
import sys
from pathlib import Path

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 480, 270, 44, 14, 14, 36
COLOURS = {"train_loss": "#8ab0cc", "valid_loss": "#b5432a"}


def draw(lines: list[dict[str, float | None]]) -> str:
    """Draw lines of metrics as SVG: nats per character by step, training and validation.

    Args:
        lines: of metrics.jsonl.
    """
    series = {name: [(line["step"], line[name]) for line in lines if line.get(name) is not None] for name in COLOURS}
    losses = [loss for points in series.values() for _, loss in points]
    low, high = math.floor(min(losses) * 2) / 2, math.ceil(max(losses) * 2) / 2
    last = max(line["step"] for line in lines)

    def x(step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * step / last

    def y(loss: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - loss) / (high - low)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH * 1.4:.0f}" '
        'font-family="system-ui, sans-serif" font-size="12" fill="#223">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="6" fill="#fff"/>',
    ]
    for half in range(round(low * 2), round(high * 2) + 1):
        parts.append(f'<path d="M{LEFT} {y(half / 2):.1f}H{WIDTH - RIGHT}" stroke="#dde3e9"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y(half / 2) + 4:.1f}" text-anchor="end">{half / 2:g}</text>')
    spacing = 10 ** math.floor(math.log10(last))
    spacing = spacing if last / spacing >= 3 else spacing / 2
    for number in range(int(last / spacing) + 1):
        step = number * spacing
        anchor = "middle" if step else "start"
        parts.append(f'<text x="{x(step):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="{anchor}">{step:,.0f}</text>')
    parts.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 5}" text-anchor="end" fill="#667">step</text>')
    parts.append(f'<text x="{LEFT}" y="{HEIGHT - 5}" fill="#667">nats per character</text>')
    for number, (name, points) in enumerate(series.items()):
        path = "L".join(f"{x(step):.1f} {y(loss):.1f}" for step, loss in points)
        parts.append(f'<path d="M{path}" fill="none" stroke="{COLOURS[name]}" stroke-width="2"/>')
        parts += [
            f'<circle cx="{x(step):.1f}" cy="{y(loss):.1f}" r="2.5" fill="{COLOURS[name]}"/>'
            for step, loss in (points if name == "valid_loss" else [])
        ]
        label = {"train_loss": "training", "valid_loss": "validation"}[name]
        parts.append(
            f'<text x="{WIDTH - RIGHT - 8}" y="{TOP + 20 + 18 * number}" text-anchor="end" '
            f'fill="{COLOURS[name]}" font-weight="bold">{label}</text>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    metrics, out = map(Path, sys.argv[1:])
    out.write_text(draw([json.loads(line) for line in metrics.read_text("utf-8").splitlines()]), "utf-8")
