"""A model that starts from another: what it knew it still knows, and new characters have places of their own."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from chargen import Corpus, ModelConfig, TrainConfig, Trainer, Vocabulary, evaluate, read_model, save_model
from chargen.errors import SettingError
from chargen.model.weights import weights_of
from chargen.storage.model_file import FILE_NAME, build_model
from chargen.storage.quantize import quantize
from chargen.training.init_from import BY_CHARACTER, init_from
from tests.small_models import small_model

TEXT = "bad cab face head\n" * 60
OTHER = "big zebra, bad äpfel\n" * 60
QUICK = TrainConfig(steps=6, batch_size=4, seq_length=8, precision="fp32", eval_every=3)


def started(file, text=OTHER, config=QUICK, **settings):
    corpus = Corpus.from_text(text, known=file.vocabulary, **settings)
    return Trainer(corpus, None, config, init=file)


def logits_of(model, vocabulary, text):
    with torch.inference_mode():
        return model(torch.from_numpy(vocabulary.encode(text).astype(np.int64))[None])[0][0].numpy()


def read_by(model, vocabulary, text):
    with torch.inference_mode():
        return model.read(torch.from_numpy(vocabulary.encode(text).astype(np.int64))[None])[0].numpy()


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_known_characters_are_read_as_before_bit_for_bit(cell, bidirectional):
    file = small_model(cell, bidirectional=bidirectional)
    trainer = started(file)
    old, new = file.vocabulary, trainer.corpus.vocabulary
    assert set(new.characters) == set(old.characters) | set(OTHER)
    places = new.encode(old.characters)
    text = "bad head\nhad a cab"
    found, expected = read_by(trainer.model, new, text), read_by(build_model(file), old, text)
    assert np.array_equal(found, expected)
    found = logits_of(trainer.model, new, text)[:, places]  # of a larger product, whose sums may have another order
    np.testing.assert_allclose(found, logits_of(build_model(file), old, text), rtol=0, atol=1e-6)
    if bidirectional:
        weights, before = weights_of(trainer.model), weights_of(build_model(file))
        assert np.array_equal(weights["cloze.output.weight"][places], before["cloze.output.weight"])
        assert np.array_equal(weights["cloze.left.weight"], before["cloze.left.weight"])


def test_new_characters_begin_as_in_a_fresh_model_but_unlikely():
    file = small_model()
    trainer = started(file)
    vocabulary = trainer.corpus.vocabulary
    new = vocabulary.encode("".join(sorted(set(OTHER) - set(file.vocabulary.characters))))
    fresh = weights_of(Trainer(trainer.corpus, file.config, QUICK).model)
    weights = weights_of(trainer.model)
    for name in ("embedding.weight", "output.weight"):
        assert np.array_equal(weights[name][new], fresh[name][new])
    assert (weights["output.bias"][new] == file.arrays["output.bias"].min()).all()
    assert trainer.checkpointer.origin["new"] == ",ilprzä"
    assert trainer.checkpointer.origin["characters"] == len(file.vocabulary)


def test_a_text_without_new_characters_is_scored_as_by_the_model_itself():
    file = small_model()
    trainer = started(file, TEXT)
    assert trainer.corpus.vocabulary == file.vocabulary
    assert all(map(np.array_equal, weights_of(trainer.model).values(), weights_of(build_model(file)).values()))
    assert trainer.checkpointer.origin["new"] == ""
    found = evaluate(trainer.model, trainer.corpus.vocabulary, TEXT)
    assert found == evaluate(build_model(file), file.vocabulary, TEXT)


def test_the_unknown_symbol_stays_the_unknown_symbol():
    file = small_model(folded="xyz")
    corpus = Corpus.from_text(OTHER + "q", known=file.vocabulary, min_count=2)
    assert corpus.vocabulary.folded == "qxy"
    assert "z" in corpus.vocabulary.characters
    trainer = Trainer(corpus, None, QUICK, init=file)
    old, new = file.arrays["embedding.weight"], weights_of(trainer.model)["embedding.weight"]
    assert np.array_equal(new[corpus.vocabulary.unknown_id], old[file.vocabulary.unknown_id])
    assert np.array_equal(new[corpus.vocabulary.encode("a")[0]], old[file.vocabulary.encode("a")[0]])


def test_bytes_need_no_new_places():
    file = small_model(unit="byte", scale=1.0)
    trainer = started(file, unit="byte")
    assert all(map(np.array_equal, weights_of(trainer.model).values(), weights_of(build_model(file)).values()))


def test_a_rounded_model_can_be_gone_on_with():
    file = small_model()
    rounded = replace(file, arrays=quantize(file.arrays, "int8"))
    weights = weights_of(started(rounded, TEXT).model)
    assert np.abs(weights["output.weight"] - file.arrays["output.weight"]).max() < 0.1
    assert weights["output.weight"].dtype == np.float32


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"hidden_size": 16}, "hidden_size is 16, but the model to start from has 12"),
        ({"cell": "gru"}, "cell is 'gru'"),
        ({"num_layers": 1}, "num_layers is 1"),
        ({"bidirectional": True}, "bidirectional is True"),
    ],
)
def test_another_shape_is_an_error_in_words(settings, words):
    file = small_model()
    corpus = Corpus.from_text(OTHER, known=file.vocabulary)
    with pytest.raises(SettingError, match=words):
        Trainer(corpus, replace(file.config, **settings), QUICK, init=file)


def test_dropout_may_change():
    file = small_model()
    corpus = Corpus.from_text(OTHER, known=file.vocabulary)
    assert Trainer(corpus, replace(file.config, dropout=0.4), QUICK, init=file).model.config.dropout == 0.4


def test_a_corpus_that_would_lose_characters_is_an_error_in_words():
    with pytest.raises(SettingError, match="known="):
        Trainer(Corpus.from_text(OTHER), None, QUICK, init=small_model())
    with pytest.raises(SettingError, match="unit is 'byte'"):
        Trainer(Corpus.from_text(OTHER, unit="byte"), None, QUICK, init=small_model())


def test_all_rows_by_character_are_named():
    file = small_model(bidirectional=True)
    sizes = {name for name, array in file.arrays.items() if len(array) == len(file.vocabulary)}
    assert set(BY_CHARACTER) == sizes
    found = init_from(file, file.config, file.vocabulary, weights_of(build_model(file)))
    assert all(np.array_equal(found.weights[name], array) for name, array in file.arrays.items())


# Frozen layers.


@pytest.mark.parametrize("freeze", [0, 1, 2])
def test_frozen_layers_stay_and_the_others_learn(freeze):
    file = small_model(bidirectional=True)
    trainer = started(file, config=replace(QUICK, freeze=freeze))
    before = weights_of(trainer.model)
    for _ in trainer.run():
        pass
    frozen = tuple(f"{way}_layers.{layer}." for way in ("forward", "backward") for layer in range(freeze))
    for name, after in weights_of(trainer.model).items():
        if not name.startswith("cloze"):  # which learns at few steps
            assert np.array_equal(after, before[name]) == name.startswith(frozen), name


def test_only_layers_of_a_model_to_start_from_can_be_frozen():
    with pytest.raises(SettingError, match="freeze is 3, but the model has 2"):
        started(small_model(), config=replace(QUICK, freeze=3))
    with pytest.raises(SettingError, match="model to start from"):
        Trainer(Corpus.from_text(TEXT), ModelConfig(hidden_size=8), replace(QUICK, freeze=1))


@pytest.fixture
def run(run, tmp_path):
    (tmp_path / "text.txt").write_text(TEXT)
    (tmp_path / "other.txt").write_text(OTHER)
    save_model(tmp_path / "old" / FILE_NAME, small_model())
    return run


WORDS = "--batch-size", 4, "--seq-length", 8, "--precision", "fp32", "--preview", 0, "--eval-every", 3


def test_a_text_is_learned_from_a_model(run):
    code, _, told = run("train", "other.txt", "--init-from", "old", "--steps", 4, "--out", "new", *WORDS)
    assert code == 0
    assert "start    from old: 10 characters known; 7 new: ',', 'i', 'l', 'p', 'r', 'z', 'ä'" in told
    file = read_model("new")
    assert file.config.hidden_size == 12
    assert set(file.vocabulary.characters) == set("abcdefgh \n") | set(OTHER)
    assert file.training["init"] == {"step": None, "characters": 10, "new": ",ilprzä"}
    assert "none new" in run("train", "text.txt", "--init-from", "old", "--steps", 1, *WORDS)[2]


def test_a_run_that_started_from_a_model_is_resumed_exactly(run):
    words = "--init-from", "old", "--freeze", 1, "--schedule", "constant", *WORDS
    run("train", "other.txt", *words, "--steps", 9, "--out", "whole")
    run("train", "other.txt", *words, "--steps", 4, "--out", "parts")
    code, _, _ = run("train", "--resume", "parts", "--steps", 9, "--preview", 0)
    assert code == 0
    whole, parts = read_model("whole"), read_model("parts")
    assert all(np.array_equal(whole.arrays[name], parts.arrays[name]) for name in whole.arrays)
    assert whole.training["init"] == parts.training["init"]
    assert np.array_equal(
        whole.arrays["forward_layers.0.weight_hh_l0"], small_model().arrays["forward_layers.0.weight_hh_l0"]
    )


def test_the_text_is_read_as_the_model_was(run):
    save_model(Path("bytes") / FILE_NAME, small_model(unit="byte", scale=1.0))
    run("train", "other.txt", "--init-from", "bytes", "--steps", 1, "--out", "b", *WORDS)
    assert read_model("b").vocabulary == Vocabulary(unit="byte")
    code, _, told = run("train", "other.txt", "--init-from", "bytes", "--unit", "character", "--steps", 1, *WORDS)
    assert code == 2
    assert "--unit is 'character', but the model to start from reads bytes" in told
    assert not Path("checkpoints").exists() or not list(Path("checkpoints").iterdir())


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["other.txt", "--init-from", "nowhere"], 4, "nowhere"),
        (["other.txt", "--init-from", "old", "--hidden-size", "16"], 2, "--hidden-size is 16, but the model"),
        (["other.txt", "--init-from", "old", "--freeze", "3"], 2, "--freeze is 3, but the model has 2"),
        (["other.txt", "--freeze", "1"], 2, "--freeze keeps layers"),
        (["--resume", "old", "--init-from", "old"], 2, "--init-from cannot be given with --resume"),
        (["--resume", "old", "--preset", "small"], 2, "--preset cannot be given with --resume"),
    ],
)
def test_what_cannot_be_started_is_told_in_a_line(run, arguments, code, words):
    found, out, told = run("train", *arguments, "--steps", 1, *WORDS)
    assert (found, out) == (code, "")
    assert words in told.splitlines()[-1]


def test_the_same_characters_in_another_vocabulary_are_another_corpus():
    plain, known = Corpus.from_text(TEXT), Corpus.from_text(TEXT, known=Vocabulary("xyz"))
    assert plain.key != known.key
    assert set(known.vocabulary.characters) == set(TEXT) | set("xyz")
    assert "known" not in plain.describe()
    assert json.loads(json.dumps(known.describe()))["known"]["characters"] == "xyz"
