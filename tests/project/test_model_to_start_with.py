"""The model that comes with the repository is small, whole and writes."""

from pathlib import Path

from chargen import Sampler, read_model

PATH = Path(__file__).parents[2] / "checkpoints/shakespeare.safetensors"


def test_it_is_small_and_says_where_it_comes_from():
    file = read_model(PATH)
    assert PATH.stat().st_size <= 4_000_000
    assert len(file.vocabulary) == 65
    said = (PATH.parent / "README.md").read_text()
    assert f"{file.training['valid_loss']:.4f}" in said
    assert f"{file.training['step']:,} steps" in said


def test_it_writes_a_play():
    sampler = Sampler.from_file(PATH, seed=1, temperature=0.7)
    sampler.feed("ROMEO:")
    text = sampler.generate(600)
    assert len(text) == 600
    assert text.count("\n\n") >= 1, "speeches are told apart"
    words = text.lower().split()
    assert sum(word in {"the", "and", "to", "i", "of", "my", "you", "a", "that", "in", "is"} for word in words) > 10
