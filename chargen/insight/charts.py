"""Tables and curves of an inspection's page, as coordinates of its drawings."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from chargen.insight.loss_profile import Calibration, LossTable

KINDS = ("first", "second", "third")
"""How lines are drawn, the most important first."""
BAR = 105
"""Width of a bar that stands for the whole."""


def list_classes(by_class: Mapping[str, LossTable]) -> list[dict[str, Any]]:
    """List what each class of characters costs each judge, and its share of what all cost the first judge.

    Args:
        by_class: losses by judge.
    """
    tables = list(by_class.values())
    first = tables[0]
    characters, nats = max(1, int(first.counts.sum())), max(float(first.nats.sum()), 1e-9)
    rows = []
    for number, name in enumerate(first.names):
        if any(table.counts[number] for table in tables):
            share = max(0.0, float(first.nats[number])) / nats
            bits = [float(table.means[number]) / math.log(2) for table in tables]
            rows.append({
                "name": name,
                "share": f"{first.counts[number] / characters:.1%}",
                "bits": ["" if math.isnan(value) else f"{value:.2f}" for value in bits],
                "of_loss": f"{share:.0%}",
                "width": round(BAR * share, 1),
            })  # fmt: skip
    return rows


def draw_distances(by_distance: Mapping[str, LossTable]) -> dict[str, Any] | None:
    """Draw losses by how many characters were read before, a line for each state.

    Args:
        by_distance: losses by the name of the state.

    Returns:
        None where there are none.
    """
    first = next(iter(by_distance.values()), None)
    if first is None or np.count_nonzero(first.counts) < 2:
        return None
    values = {name: table.means / math.log(2) for name, table in by_distance.items()}
    top = max(1, math.ceil(max(float(np.nanmax(each)) for each in values.values())))
    step = max(1, math.ceil(top / 5))
    xs = np.linspace(50, 385, len(first.names))
    lines = [
        {"name": name, "kind": kind, "points": _points(xs, 190 - 175 * each / top)}
        for (name, each), kind in zip(values.items(), KINDS, strict=False)
    ]
    shown = next(iter(values.values()))
    every = max(1, math.ceil(len(xs) / 6))
    return {
        "lines": lines,
        "grid": [(round(190 - 175 * bits / top, 1), f"{bits}") for bits in range(0, top + 1, step)],
        "labels": [(round(x, 1), name) for x, name in zip(xs, first.names, strict=True)][::every],
        "words": "Bits per character, by how many characters the model has read.",
        "spoken": "; ".join(f"{name} read: {bits:.2f}" for name, bits in zip(first.names, shown, strict=True)),
    }


def draw_calibration(curves: Mapping[str, Calibration]) -> dict[str, Any]:
    """Draw how often what was likeliest came true, a line for each judge.

    Args:
        curves: by judge.
    """
    lines = [
        {"name": judge, "kind": kind, "points": _points(50 + 200 * curve.predicted, 220 - 200 * curve.observed)}
        for (judge, curve), kind in zip(curves.items(), KINDS, strict=False)
    ]
    errors = ", ".join(f"{judge} {curve.error:.1%}" for judge, curve in curves.items())
    judge, curve = next(iter(curves.items()))
    pairs = zip(curve.predicted, curve.observed, strict=True)
    spoken = "; ".join(f"at {p:.0%} it is right {q:.0%} of the time" for p, q in pairs if not math.isnan(p))
    return {"lines": lines, "words": f"Mean distance from the diagonal: {errors}.", "spoken": f"{judge}: {spoken}"}


def _points(xs: Any, ys: Any) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True) if not math.isnan(x + y))
