"""How a model is trained: budget, minibatches, optimizer, intervals."""

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from chargen.counting.context_tree import MAX_ORDER
from chargen.errors import ModelFileError, SettingError
from chargen.model.config import MAX_NETWORKS, ModelConfig
from chargen.rng import MAX_SEED
from chargen.settings import changed_settings, check_settings, make_settings, resumable_settings, setting

DEFAULT_MINUTES = 5.0
TAUGHT_DECAY = 0.3
"""Weight decay of a network that has teachers, at most."""
TAUGHT_PARTS = 3
"""Of a budget, what a network with teachers has for each part of one without."""
OWN_SHARE = 1 / 3
"""Of the rows of a minibatch, those that read the text itself where teachers write for the others."""
BUDGETS = {"minutes", "epochs", "steps"}


@dataclass(frozen=True)
class TrainConfig:
    """Everything about a training run that is neither text nor model.

    At most one of steps and epochs; with minutes beside it, the budget that is used first ends the run.
    """

    minutes: float | None = setting(None, "budget: wall clock from start to saved file, validation included; "
                                    "5 where no budget is given", above=0, high=10_000_000, resumable=True)  # fmt: skip
    epochs: float | None = setting(None, "budget: passes over the training text, fractions allowed", above=0,
                                   high=1_000_000_000, resumable=True)  # fmt: skip
    steps: int | None = setting(None, "budget: optimizer steps", low=1, high=10**12, resumable=True)
    batching: str = setting("consecutive", "rows that run on through the text with carried state, or random windows",
                            choices=("consecutive", "random"))  # fmt: skip
    batch_size: int = setting(32, "rows of a minibatch (B), of all processes together", low=1, high=1_000_000)
    seq_length: int = setting(128, "characters per row and step, and how far gradients flow (T)", low=1, high=1_000_000)
    state_reset: float = setting(0.05, "fresh states in a row's window, on average, at line ends where there are any, "
                                 "so that the model learns to begin; 1 carries no state", low=0, high=1)  # fmt: skip
    lr: float = setting(4e-3, "peak learning rate of AdamW", above=0, high=10, resumable=True)
    schedule: str = setting("cosine", "learning rate over the budget: falling to zero, or level",
                            choices=("cosine", "constant"), resumable=True)  # fmt: skip
    warmup: int = setting(50, "steps over which the learning rate rises at the start", low=0, high=10**12,
                          resumable=True)  # fmt: skip
    weight_decay: float = setting(
        0.3, "AdamW's weight decay, times the rate; biases and embedding are spared", low=0, high=10, resumable=True
    )
    clip_norm: float = setting(
        1.0, "longest gradient of a direction's loss, as a norm over its weights; 0 is off", low=0, resumable=True
    )
    precision: str = setting("auto", "of matrix products: bf16 where that is faster",
                             choices=("auto", "fp32", "bf16"), resumable=True)  # fmt: skip
    device: str = setting("auto", "cuda or mps where there is one, else cpu", choices=("auto", "cpu", "cuda", "mps"),
                          resumable=True)  # fmt: skip
    freeze: int = setting(0, "lowest recurrent layers that stay as they are, in a model that starts from another",
                          low=0, high=64)  # fmt: skip
    members: int = setting(1, "networks that share the budget, one after the other, and predict together: the mean of "
                           "their probabilities; up to 5 by themselves where minutes are more than fewer can use",
                           low=1, high=MAX_NETWORKS, words=MappingProxyType({"auto": None}))  # fmt: skip
    teachers: int = setting(0, "networks that are trained first and not kept: they write text from which the others, "
                            "which have no dropout, learn beside the given one; off is 0", low=0, high=MAX_NETWORKS - 1,
                            words=MappingProxyType({"auto": None, "off": 0}))  # fmt: skip
    counts: int = setting(0, "order N of counts (n-grams) that predict beside the network: which character followed "
                          "each N - 1 others; kept where it helps on the validation part; off is 0", low=0,
                          high=MAX_ORDER, words=MappingProxyType({"auto": None, "off": 0}),
                          resumable=True)  # fmt: skip
    counts_mb: float = setting(64.0, "megabytes of counts in the model file, at most; never more than 4 bytes for each "
                               "character of the training part", above=0, high=64, resumable=True)  # fmt: skip
    seed: int = setting(0, "fixes weights, batches and dropout", low=0, high=MAX_SEED)
    eval_every: int | None = setting(None, "steps between validations; by default they take some 2 % of the time",
                                     low=1, resumable=True)  # fmt: skip
    log_every: int = setting(20, "steps between lines of metrics.jsonl", low=1, resumable=True)
    save_minutes: float = setting(1.0, "minutes between saves of the run", above=0, resumable=True)
    patience: int = setting(0, "stop after this many validations without a new best; 0 never stops early", low=0,
                            resumable=True)  # fmt: skip

    def __post_init__(self) -> None:
        check_settings(self)
        if self.epochs is not None and self.steps is not None:
            raise SettingError(
                f"epochs {self.epochs:,} and steps {self.steps:,} are one budget twice: give one", "epochs"
            )
        if self.networks > MAX_NETWORKS:
            raise SettingError(
                f"teachers {self.teachers} and members {self.members} are {self.networks} networks: there may be "
                f"{MAX_NETWORKS}",
                "teachers",
            )
        if self.teachers and self.batch_size < 2:
            raise SettingError(
                f"teachers is {self.teachers}, but a minibatch of one row has none for what they write: give "
                "`batch_size=2` or more, or no teachers",
                "teachers",
            )
        if (self.minutes, self.epochs, self.steps) == (None, None, None):
            object.__setattr__(self, "minutes", DEFAULT_MINUTES)

    def __repr__(self) -> str:
        return changed_settings(self)

    @property
    def networks(self) -> int:
        """How many are trained, one after the other."""
        return self.teachers + self.members

    @property
    def parts(self) -> list[int]:
        """What each of them has of the budget."""
        return [TAUGHT_PARTS if self.is_taught(number) else 1 for number in range(self.networks)]

    @property
    def own_rows(self) -> int:
        """How many rows of a minibatch read the text itself where there are teachers: the first ones."""
        return max(1, round(self.batch_size * OWN_SHARE))

    def of_network(self, number: int) -> "TrainConfig":
        """The settings of one of them: who is taught cannot learn the text by heart, and needs less weight decay.

        Args:
            number: of the network, from 0.
        """
        return replace(self, weight_decay=min(self.weight_decay, TAUGHT_DECAY)) if self.is_taught(number) else self

    def shape_of(self, shape: ModelConfig, number: int) -> ModelConfig:
        """The shape of one of them: who is taught needs no dropout.

        Args:
            shape: of those that are not.
            number: of the network, from 0.
        """
        return replace(shape, dropout=0.0) if self.is_taught(number) else shape

    def is_taught(self, number: int) -> bool:
        """Whether a network learns from teachers, too.

        Args:
            number: of the network, from 0.
        """
        return 0 < self.teachers <= number


def changed_config(settings: dict[str, Any], changes: dict[str, Any]) -> TrainConfig:
    """A stored run's training settings with changes that leave it the same run; a new budget replaces the old ones.

    Args:
        settings: the stored ones, of model, corpus and training.
        changes: training settings, by name.

    Raises:
        SettingError: for a change of model, corpus or batching.
        ModelFileError: for stored settings that are none.
    """
    try:
        make_settings(TrainConfig, settings["training"])
    except SettingError as error:
        raise ModelFileError(f"the run's settings are none of this version's: {error}") from error
    stored = {**settings["model"], **settings["corpus"]["config"], **settings["training"]}
    allowed = resumable_settings(TrainConfig)
    for name, value in changes.items():
        value = list(value) if isinstance(value, tuple) else value  # as JSON has it
        if name not in allowed and stored.get(name) != value:
            raise SettingError(
                f"{name} is {value!r}, but the run has {stored.get(name)!r}: model, corpus and batching stay "
                "as they are in a resumed run; start a new run for that",
                name,
            )
    kept = settings["training"] | (dict.fromkeys(BUDGETS) if BUDGETS & changes.keys() else {})
    return make_settings(TrainConfig, kept | {name: value for name, value in changes.items() if name in allowed})
