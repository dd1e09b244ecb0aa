"""When a run is validated and on what, and its best weights so far."""

import copy
import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import astuple
from typing import Any

import torch
from numpy.typing import NDArray

from chargen.counting.context_tree import ContextTree
from chargen.counting.mixture import Mixture
from chargen.counting.recorder import Recorder
from chargen.data.corpus import Corpus
from chargen.errors import NOT_FINITE_MESSAGE, Diverged
from chargen.evaluation.layout import MAX_ROWS
from chargen.evaluation.loss import Loss, loss_windows, sum_losses
from chargen.evaluation.rows import Networks
from chargen.model.device import autocast
from chargen.model.language_model import CharModel
from chargen.model.weights import Arrays, set_weights, weights_of
from chargen.training.budget import Budget
from chargen.training.cloze_task import cloze_loss, even_windows
from chargen.training.config import TrainConfig
from chargen.training.counters import Counters
from chargen.training.counts import MIN_GAIN, CrossFitted, count_contexts, fit_mixture, fitted_ids
from chargen.training.group import ALONE, Group
from chargen.training.losses import Losses, mean_loss, named_losses, without_counts

SUBSET = 24_000
"""Ids of the fixed part of the validation text that is scored while training."""
SUBSET_SHARE = 0.03
"""By default, ids scored per id trained: scoring with its warm-up costs half of training, so 1.5 % of the time."""
Scoring = Generator[None, None, Losses]
"""Yields between windows, so that the caller may look at a clock; returns the losses."""


def scored_sizes(corpus: Corpus) -> tuple[int, int]:
    """Ids of the validation part and of the test part; 0 where there is too little to score."""
    count = corpus.vocabulary.count_characters
    first, second = (len(ids) if len(ids) > 1 and count(ids) > 1 else 0 for ids in (corpus.valid, corpus.test))
    return first, second


class Validator:
    """Scores a model on the parts that it does not learn, and keeps the best weights.

    Args:
        corpus: its parts.
        config: how often.
        precision: of matrix products.
        budget: learns how long scoring takes, and says whether there is time for it.
        counters: the run's; best loss and step, and validations since.
        group: the processes, each of which scores its share.
    """

    def __init__(
        self,
        corpus: Corpus,
        config: TrainConfig,
        precision: str,
        budget: Budget,
        counters: Counters,
        group: Group = ALONE,
    ) -> None:
        self.corpus = corpus
        self.config = config
        self.precision = precision
        self.budget = budget
        self.counters = counters
        self.group = group
        self.sizes = scored_sizes(corpus)
        # By default as often as its cost allows: this depends on text and batch only; `due` may leave some out.
        targets = config.batch_size * config.seq_length
        self.every = config.eval_every or max(10, math.ceil(min(len(corpus.valid), SUBSET) / (SUBSET_SHARE * targets)))
        self.begin_network()

    def begin_network(self) -> None:
        """Forget the best weights: another network is trained."""
        self.best: Arrays | None = None
        self._last_step: int | None = None

    @property
    def out_of_patience(self) -> bool:
        """True where too many validations in a row brought no new best."""
        return 0 < self.config.patience <= self.counters.evaluations_since_best

    def due(self, step: int) -> bool:
        """True at multiples of `every`; where that is the usual one, of those that a time budget has time for."""
        if not self.sizes[0] or step % self.every:
            return False
        return self.config.eval_every is not None or self.budget.may_validate()

    def score(self, model: Networks, ids: NDArray[Any], limit: int | None, mixtures: Mapping[str, Any] = {}) -> Scoring:
        """The losses on ids (N,), or on `limit` of them, with counts of some directions.

        Cloze on a quarter as many, from fresh states, in nats per id: of a byte, or of an unknown symbol as it is. Of
        several networks it is that of the first.
        """
        yield  # so that processes that stop do so before they wait for each other
        losses: Losses = {}
        began = self.budget.now()
        size = min(len(ids), limit or len(ids))
        options: dict[str, Any] = {"vocabulary": self.corpus.vocabulary, "limit": limit, "precision": self.precision}
        first, number = (model, 1) if isinstance(model, CharModel) else (model[0], len(model))
        for direction in first.config.directions:
            windows = []
            options |= {"direction": direction, "mixture": mixtures.get(direction)}
            for window in loss_windows(model, ids, **options, share=self.group.share_of):
                windows.append(window)
                yield
            losses[direction] = sum_losses(windows)
        if first.config.bidirectional:
            cloze = []
            for number, rows in enumerate(even_windows(ids, size // 4)):
                if number % self.group.size != self.group.rank:
                    continue
                with torch.inference_mode(), autocast(self.precision, first.device):
                    loss, count = cloze_loss(first, rows)
                cloze.append(Loss(loss.item() * count, count))
                yield
            losses["cloze"] = sum_losses(cloze)
        losses = self._sum(losses)
        if "cloze" in losses and not (losses["cloze"].characters and math.isfinite(losses["cloze"].nats)):
            del losses["cloze"]
        self.budget.scored(size * number, self.budget.now() - began)
        return losses

    def _sum(self, losses: Losses) -> Losses:
        """The losses over the shares of all processes."""
        sums = iter(self.group.exchange(value for loss in losses.values() for value in astuple(loss)))
        summed = {}
        for name in losses:
            nats, characters, ids, records, end_nats, network_nats = (next(sums) for _ in range(6))
            summed[name] = Loss(nats, int(characters), int(ids), int(records), end_nats, network_nats)
        return summed

    def validate(self, model: CharModel) -> Scoring:
        """Score the subset, and keep the weights where they are the best so far.

        Returns:
            The losses; none where they are not finite: the next steps decide whether the run goes on.
        """
        counters = self.counters
        losses = yield from self.score(model, self.corpus.valid, SUBSET)
        self._last_step = counters.step
        if not math.isfinite(mean_loss(losses)):
            losses = {}
        loss = mean_loss(losses) if losses else None
        if loss is not None and (counters.best_loss is None or loss < counters.best_loss):
            counters.best_loss, counters.best_step, counters.evaluations_since_best = loss, counters.step, 0
            self.best = weights_of(model)
        else:
            counters.evaluations_since_best += 1
        return losses

    def choose_best(self, model: CharModel) -> Generator[None, None, tuple[CharModel, int]]:
        """When its training ends: the best of a network and its step; the last weights take part, validated or not."""
        counters, best = self.counters, self.best
        if counters.best_loss is not None and counters.step not in (self._last_step, counters.best_step):
            last = yield from self.score(model, self.corpus.valid, SUBSET)
            if mean_loss(last) < counters.best_loss:
                best = None
        if best is None:
            return model, counters.step
        assert counters.best_step is not None
        plain = type(model) is CharModel  # somebody's own class need not be made like that
        chosen = CharModel(model.config, model.vocabulary_size).to(model.device) if plain else copy.deepcopy(model)
        set_weights(chosen, best)
        return chosen, counters.best_step

    def score_whole(
        self, networks: Sequence[CharModel], limits: tuple[int | None, int | None]
    ) -> Generator[None, None, tuple[dict[str, Losses], dict[str, Any], dict[str, Mixture]]]:
        """Score the whole validation and test parts, or `limits` ids of them where time is short.

        Where counts are asked for, they are mixed in by weights that are fitted on the validation part.

        Returns:
            The losses by part, "valid" and "test"; what the model file says of them; and the counts of each direction
            that they help.

        Raises:
            Diverged: where they are not finite.
        """
        losses: dict[str, Losses] = {"valid": {}, "test": {}}
        figures: dict[str, Any] = {}
        config, trees = networks[0].config, dict[str, ContextTree]()
        mixtures: dict[str, Mixture] = {}
        fitted: dict[str, tuple[Mixture, CrossFitted]] = {}
        if self.config.counts:
            order, megabytes = self.config.counts, self.config.counts_mb
            trees = count_contexts(self.corpus, order, config.directions, megabytes)
        parts = self.corpus.valid, self.corpus.test
        for part, ids, size, limit in zip(losses, parts, self.sizes, limits, strict=True):
            if not size:
                continue
            if part == "valid":
                fitted = yield from self._fit(networks, trees)
            scorers = {direction: cross_fitted for direction, (_, cross_fitted) in fitted.items()}
            losses[part] = yield from self.score(networks, ids, limit, scorers if part == "valid" else mixtures)
            if not math.isfinite(mean_loss(losses[part])):
                raise Diverged(NOT_FINITE_MESSAGE)
            if part == "valid":
                mixtures = _leave_out_useless(fitted, losses[part])
            counted = losses[part]["forward"]
            figures |= {
                f"{part}_loss": mean_loss(losses[part]),
                f"{part}_characters": counted.characters,
                f"{part}_whole": limit is None,
            }
            if self.corpus.vocabulary.unit == "byte":
                figures[f"{part}_bytes"] = counted.ids
            if config.bidirectional:
                figures |= named_losses(part, losses[part])
            if mixtures:
                figures[f"{part}_loss_network"] = mean_loss(without_counts(losses[part]))
        return losses, figures, mixtures

    def _fit(
        self, networks: Sequence[CharModel], trees: Mapping[str, ContextTree]
    ) -> Generator[None, None, dict[str, tuple[Mixture, CrossFitted]]]:
        """Fit the weights of counts on the validation part, or on as much of it as that takes."""
        fitted, vocabulary = {}, self.corpus.vocabulary
        for direction, tree in trees.items():
            recorder = Recorder(end_id=vocabulary.end_id, whole=True)
            options: dict[str, Any] = {"direction": direction, "precision": self.precision, "vocabulary": vocabulary}
            limit = fitted_ids(len(vocabulary))
            rows = MAX_ROWS if limit < len(self.corpus.valid) else None  # many stretches, however short
            options |= {"limit": limit, "rows": rows, "share": self.group.share_of, "mixture": recorder}
            for _ in loss_windows(networks, self.corpus.valid, **options):
                yield
            fitted[direction] = fit_mixture(tree, recorder, self.group)
        return fitted


def _leave_out_useless(fitted: Mapping[str, tuple[Mixture, CrossFitted]], losses: Losses) -> dict[str, Mixture]:
    """The mixtures that save enough; where one does not, its direction's loss becomes that of the network."""
    alone, mixtures = without_counts(losses), {}
    for direction, (mixture, _) in fitted.items():
        if alone[direction].nats - losses[direction].nats > MIN_GAIN * losses[direction].characters:
            mixtures[direction] = mixture
        else:
            losses[direction] = alone[direction]
    return mixtures
