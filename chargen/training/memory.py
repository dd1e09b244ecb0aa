"""How much memory a training run takes, before it starts."""

from chargen.model.config import GATES, ModelConfig, parameter_count
from chargen.training.config import TrainConfig


def estimate_memory(model_config: ModelConfig, vocabulary_size: int, config: TrainConfig) -> int:
    """About how many bytes training takes beside Python and torch themselves: weights and windows, no workspace."""
    weights = parameter_count(model_config, vocabulary_size)
    gates = GATES[model_config.cell]
    per_character = (
        2 * model_config.embedding_size
        + model_config.num_layers * model_config.hidden_size * (gates + 4)
        + 4 * vocabulary_size
    )
    copies = 5  # weights, gradients, two moments, the best weights
    return 4 * (copies * weights + config.batch_size * config.seq_length * per_character)
