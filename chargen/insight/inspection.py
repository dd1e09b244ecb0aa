"""What `inspect` tells: what a model expects in a text, what its hidden units do there, and where it loses."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from chargen.errors import amount, quote_argument, truncate
from chargen.insight.activations import Activations
from chargen.insight.charts import draw_calibration, draw_distances, list_classes
from chargen.insight.gates import Saturation
from chargen.insight.loss_profile import Calibration, LossTable, loss_by_class
from chargen.insight.neurons import Neuron, Neurons
from chargen.insight.page_data import show_characters, write_data
from chargen.insight.predictions import Predictions
from chargen.pages.render import frame_page, join_scripts, render_page, require_packages
from chargen.storage.model_file import ModelFile

SURPRISING = 6
"""Bits of the characters that a key leads to; the script has the number too."""
TITLES = {
    "cloze": "surprise, read from both sides (cloze)",
    "forward": "surprise, read forward",
    "backward": "surprise, read backward",
}


@dataclass(frozen=True, eq=False)
class Inspection:
    """What a model makes of a text. A notebook shows it as its page.

    Args:
        name: of the model.
        file: the model.
        predictions: what it expects at every character.
        activations: its hidden states after every character, read forward; None where they were not kept.
        neurons: hidden units that tell a feature of the text, the strongest first.
        saturation: by the name of a gate, how often it is nearly shut or open.
        by_distance: losses by how many characters were read before, by the name of the state; those of a running text
            of less than two thousand characters have none.
        left_out: characters behind those that were read.
    """

    name: str
    file: ModelFile = field(repr=False)
    predictions: Predictions = field(repr=False)
    activations: Activations | None = field(default=None, repr=False)
    neurons: Neurons = field(default_factory=Neurons, repr=False)
    saturation: dict[str, Saturation] = field(default_factory=dict, repr=False)
    by_distance: dict[str, LossTable] = field(default_factory=dict, repr=False)
    left_out: int = 0

    @property
    def by_class(self) -> dict[str, LossTable]:
        """By judge, losses by class of character."""
        predictions = self.predictions
        return {judge: loss_by_class(predictions.text, costs) for judge, costs in predictions.log_probs.items()}

    @property
    def calibration(self) -> dict[str, Calibration]:
        """By judge, the probability of what is likeliest, and how often it came true."""
        return {judge: self.predictions.calibration(judge) for judge in self.predictions.log_probs}

    @property
    def bits(self) -> dict[str, float]:
        """By judge, the mean loss in bits per character; nan where nothing was scored."""
        means = {}
        for judge, log_probs in self.predictions.log_probs.items():
            scored = log_probs[~np.isnan(log_probs)]
            means[judge] = -float(scored.mean(dtype=np.float64)) / math.log(2) if len(scored) else math.nan
        return means

    def page(self) -> str:
        """One HTML page that needs nothing beside it, of at most 15 MB.

        Raises:
            SettingError: the package jinja2 is missing.
        """
        hidden = None if self.activations is None else self.activations.hidden
        require_packages()
        data = write_data(self.predictions, self.file.vocabulary, hidden, self.neurons)
        script = join_scripts("chargen.pages.coloured_text", "chargen.insight.inspect")
        return render_page("chargen.insight", "inspect", script, _describe(self), data)

    def __repr__(self) -> str:
        bits = ", ".join(f"{judge} {value:.4f}" for judge, value in self.bits.items())
        name = truncate(self.name, 60, repr)
        return f"Inspection({name}, {amount(len(self.predictions.text), 'character')}, bits: {bits})"

    def _repr_html_(self) -> str:
        return frame_page(self.page())


def _describe(inspection: Inspection) -> dict[str, Any]:
    """What the page says beside the text."""
    predictions, config = inspection.predictions, inspection.file.config
    sides = "reads both ways" if config.bidirectional else "reads forward"
    bits = [f"{judge} {value:.3f}" for judge, value in inspection.bits.items() if not math.isnan(value)]
    mean = f"; bits per character: {', '.join(bits)}" if bits else ""
    rest = f" of {len(predictions.text) + inspection.left_out:,}" if inspection.left_out else ""
    alone = f"; by {left_out}" if (left_out := inspection.file.network_alone) else ""
    size = f"{config.cell.upper()}, {amount(config.num_layers, 'layer')} of {config.hidden_size:,}, {sides}"
    return {
        "name": show_characters(truncate(inspection.name))[0],
        "model": f"{size}, {len(inspection.file.vocabulary):,} in its vocabulary",
        "summary": f"{amount(len(predictions.text), 'character')}{rest}{mean}{alone}",
        "surprising": SURPRISING,
        "judges": [{"name": judge, "title": TITLES[judge]} for judge in predictions.log_probs],
        "classes": list_classes(inspection.by_class),
        "distance": draw_distances(inspection.by_distance),
        "calibration": draw_calibration(inspection.calibration),
        "neurons": [_describe_neuron(neuron, inspection.name) for neuron in inspection.neurons],
        "layers": [{"units": config.hidden_size}] * (inspection.activations is not None) * config.num_layers,
        "saturation": [
            {"layer": layer, "gate": gate, "left": f"{left:.1%}", "right": f"{right:.1%}"}
            for gate, saturation in inspection.saturation.items()
            for layer, (left, right) in enumerate(saturation.by_layer, 1)
        ],
    }


def _describe_neuron(neuron: Neuron, model: str) -> dict[str, str]:
    return {
        "name": str(neuron),
        "feature": show_characters(truncate(neuron.feature))[0],
        "correlation": f"{neuron.held_out_correlation:.2f}",
        "auc": "" if neuron.auc is None else f"{neuron.auc:.3f}",
        "model": show_characters(quote_argument(model))[0],
        "on": f"{neuron.on:.2f}",
    }
