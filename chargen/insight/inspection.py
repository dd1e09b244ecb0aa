"""What `inspect` tells: what a model expects in a text, what its hidden units do there, and where it loses."""

import math
from dataclasses import dataclass, field

import numpy as np

from chargen.errors import amount
from chargen.insight.activations import Activations
from chargen.insight.loss_profile import Calibration, LossTable, loss_by_class
from chargen.insight.predictions import Predictions
from chargen.storage.model_file import ModelFile


@dataclass(frozen=True, eq=False)
class Inspection:
    """What a model makes of a text. A notebook shows it as its page.

    Args:
        name: of the model.
        file: the model.
        predictions: what it expects at every character.
        activations: its hidden states after every character, read forward; None where they were not kept.
        by_distance: losses by how many characters were read before, by the name of the state; those of a running text
            of less than two thousand characters have none.
        left_out: characters behind those that were read.
    """

    name: str
    file: ModelFile = field(repr=False)
    predictions: Predictions = field(repr=False)
    activations: Activations | None = field(default=None, repr=False)
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
        """One HTML page that needs nothing beside it.

        Raises:
            SettingError: the package jinja2 is missing.
        """
        from chargen.insight.report import render_page

        return render_page(self)

    def __repr__(self) -> str:
        bits = ", ".join(f"{judge} {value:.4f}" for judge, value in self.bits.items())
        return f"Inspection({self.name}, {amount(len(self.predictions.text), 'character')}, bits: {bits})"

    def _repr_html_(self) -> str:
        from chargen.insight.report import frame_page

        return frame_page(self.page())
