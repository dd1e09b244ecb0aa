"""Small runs of models that read both ways."""

from chargen.data.corpus import Corpus
from chargen.model.config import ModelConfig
from chargen.training.config import TrainConfig

TEXT = "It was the best of times, it was the worst of times, it was the age of wisdom. " * 12
SMALL = ModelConfig(num_layers=2, hidden_size=10, embedding_size=6, dropout=0.2, bidirectional=True)


def config(**chosen):
    """Wide enough for the cloze layer to learn within a few steps, at some and not at others."""
    usual = {"steps": 12, "batch_size": 4, "seq_length": 32, "lr": 0.01, "warmup": 2, "precision": "fp32",
             "eval_every": 5, "log_every": 4}  # fmt: skip
    return TrainConfig(**{**usual, **chosen})


def corpus(text=TEXT, **chosen):
    return Corpus.from_text(text, **chosen)


def finish(trainer):
    for _ in trainer.run():
        pass
    return trainer


def weights_of(model):
    return {name: weight.clone() for name, weight in model.state_dict().items()}
