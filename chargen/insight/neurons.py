"""Which hidden units mean something: each is chosen on one half of a text, and measured on the other."""

import html
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chargen.errors import SettingError, amount, truncate
from chargen.insight.activations import Activations
from chargen.insight.correlations import Correlations, roc_areas
from chargen.insight.features import Feature
from chargen.settings import check_int

NUM = 24
"""Hidden units that are named."""
OF_EACH = 4
"""Of these, how many tell the same feature, while there are others."""
CANDIDATES = 16
"""Hidden units that are tried on the second half of the text for each feature, at least."""
MIN_ENDS = 5
"""How often a feature must end, or fall, in each half of a text: among a thousand hidden units some fit few events."""
ROWS = 4096
"""Characters whose states are multiplied at a time."""


@dataclass(frozen=True)
class Neuron:
    """A hidden unit that tells a feature.

    It is chosen by its correlation with the feature on the first half of a text. What it is worth is measured on the
    second half.

    Args:
        layer: from 1.
        unit: from 0.
        feature: the name of the feature.
        correlation: with the feature, on the first half.
        held_out_correlation: on the second half.
        auc: on the second half, the probability that the hidden unit, times `sign`, is higher at a character that has
            the feature than at one that has not; None where the feature is a number.
        sign: 1 where it is high at characters that have the feature, -1 where it is low there; on the first half.
        threshold: half way between its means at characters that have the feature and at others, on the first half.
        on: its mean at characters that have the feature; of a number, what is to be expected at one standard deviation
            above the feature's mean. Held there, it says that the feature is there.
        off: the same of characters that have it not, or one standard deviation below.
    """

    layer: int
    unit: int
    feature: str
    correlation: float
    held_out_correlation: float
    auc: float | None
    sign: int
    threshold: float
    on: float
    off: float

    def __str__(self) -> str:
        return f"{self.layer}:{self.unit}"

    @property
    def strength(self) -> float:
        """How well it tells the feature on the second half: 0 not at all, 1 always; below 0 where the sign is wrong.

        2 AUC - 1; where the feature is a number, the correlation times the sign.
        """
        return self.sign * self.held_out_correlation if self.auc is None else 2 * self.auc - 1


class Neurons(list[Neuron]):
    """Hidden units, the strongest first. A notebook shows them as a table."""

    def __repr__(self) -> str:
        parts = (f"{each} {truncate(each.feature, 60, repr)} {each.strength:.2f}" for each in self)
        return f"Neurons({', '.join(parts)})"

    def _repr_html_(self) -> str:
        """The table, with figures of the second half of the text."""
        titles = "hidden unit", "feature", "correlation", "AUC", "on", "off"
        rows = [
            (str(neuron), neuron.feature, f"{neuron.held_out_correlation:.3f}",
             "" if neuron.auc is None else f"{neuron.auc:.3f}", f"{neuron.on:.2f}", f"{neuron.off:.2f}")
            for neuron in self
        ]  # fmt: skip
        head = "".join(f"<th>{title}</th>" for title in titles)
        body = ("".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows)
        return f"<table><tr>{head}</tr>{''.join(f'<tr>{cells}</tr>' for cells in body)}</table>"


def rank_units(
    blocks: Activations | Iterable[Activations], features: Mapping[str, Feature], *, num: int = NUM,
    of_each: int = OF_EACH,
) -> Neurons:  # fmt: skip
    """Rank the hidden units of all layers by the feature that each tells best.

    Args:
        blocks: activations, or blocks of them as `stream_activations` hands them over.
        features: (N,) by name, as `text_features` makes them of the whole text.
        num: how many hidden units to name, each once.
        of_each: how many of them tell the same feature, while there are others.

    Returns:
        The strongest first.

    Raises:
        SettingError: a number is out of range, or the features have other characters.
    """
    num, of_each = check_int("num", num, 0), check_int("of_each", of_each, 1)
    size = max(map(len, features.values()), default=0)
    half = size // 2
    often = {name: values for name, values in features.items() if _ends_often(values[:half], values[half:])}
    columns = list(often.values())
    if not columns or not num:
        return Neurons()
    first, second = Correlations(columns, 0, half), Correlations(columns, half, size)
    best, held_out, layer_size, done = np.zeros(0, np.int64), [], 1, 0
    for states in _rows([blocks] if isinstance(blocks, Activations) else blocks, half, size):
        if done == half:
            best = first.finish().best(max(CANDIDATES, num))
        if done < half:
            first.add(states.reshape(len(states), -1).astype(np.float32))
        else:
            held_out.append(states.reshape(len(states), -1)[:, best])
            second.add(held_out[-1].astype(np.float32))
        layer_size, done = states.shape[2], done + len(states)
    second.finish()
    areas = roc_areas(np.concatenate(held_out), [values[half:] for values in columns])
    neurons = []
    for row, (name, values) in enumerate(often.items()):
        for column, number in enumerate(best.tolist()):
            layer, unit = divmod(number, layer_size)
            sign = 1 if first.r[row, number] >= 0 else -1
            on, off = first.sides(row, number)
            area = float(areas[row, column] if sign > 0 else 1 - areas[row, column])
            neurons.append(Neuron(
                layer + 1, unit, name, float(first.r[row, number]), float(second.r[row, column]),
                area if values.dtype == np.bool_ else None, sign, (on + off) / 2, on, off,
            ))  # fmt: skip
    return _choose(sorted(neurons, key=lambda neuron: -neuron.strength), num, of_each)


def _ends_often(*parts: Feature) -> bool:
    return all(np.count_nonzero(part[1:] < part[:-1]) >= MIN_ENDS for part in parts)


def _choose(neurons: list[Neuron], num: int, of_each: int) -> Neurons:
    """The strongest of neurons that are sorted, each hidden unit once; first only some of each feature."""
    chosen: dict[tuple[int, int], Neuron] = {}
    for limit in (of_each, num):
        counts = Counter(neuron.feature for neuron in chosen.values())
        for neuron in neurons:
            place = neuron.layer, neuron.unit
            if len(chosen) < num and place not in chosen and counts[neuron.feature] < limit:
                chosen[place] = neuron
                counts[neuron.feature] += 1
    return Neurons(sorted(chosen.values(), key=lambda neuron: -neuron.strength))


def _rows(blocks: Iterable[Activations], half: int, size: int) -> Iterator[NDArray[np.float16]]:
    """Hidden states (n, L, H) of some characters after others; none of both halves."""
    done = 0
    for block in blocks:
        begin, end = 0, len(block.text)
        while begin < end and done <= size:
            stop = min(begin + ROWS, end, begin + half - done if done < half else end)
            if done + stop - begin <= size:
                yield block.hidden[:, begin:stop].swapaxes(0, 1)
            done, begin = done + stop - begin, stop
    if done != size:
        raise SettingError(f"features of {amount(size, 'character')} do not fit activations of {done:,}", "features")
