"""`chargen eval`: a model that learns while it reads, and parts of a text."""

import json
from dataclasses import replace

import numpy as np

from chargen.storage.model_file import FILE_NAME, save_model
from tests.commands import QUICK, TEXT, is_one_line
from tests.small_models import small_model


def test_eval_with_a_model_that_learns_while_it_reads(run, tmp_path) -> None:
    (tmp_path / "text.txt").write_text(TEXT[:1200])
    run("train", "text.txt", "--steps", 10, *QUICK)
    words = "eval", "checkpoints/text", "text.txt", "--part", "valid"
    plain = json.loads(run(*words, "--json").out)
    figures = json.loads(run(*words, "--dynamic", "--json").out)
    assert figures["static_nats_per_character"] == plain["nats_per_character"]
    assert figures["characters"] == plain["characters"]
    assert figures["nats_per_character"] < plain["nats_per_character"]
    assert figures["dynamic"]["tail"] == 1200 * 9 // 10
    assert figures["dynamic"]["lr"] > 0
    assert json.loads(run(*words, "--json").out) == plain
    (tmp_path / "other.txt").write_text(TEXT[:500][::-1])
    tuned = json.loads(run("eval", "checkpoints/text", "text.txt", "--dynamic", "--tune", "other.txt", "--json").out)
    assert tuned["dynamic"]["tail"] == 500
    result = run(*words, "--dynamic")
    assert f"{figures['nats_per_character']:.4f} nats per character" in result.out
    assert f"the model as it was: {plain['nats_per_character']:.4f} nats, " in result.err


def test_rates_are_not_chosen_on_what_is_scored(run, tmp_path) -> None:
    """Neither on the same text, nor on one that contains it or lies within it, nor where two texts overlap."""
    draws = np.random.default_rng(0)
    text, more = ("".join(draws.choice(list("abcdefgh \n"), 6000)) for _ in range(2))
    save_model(tmp_path / "model" / FILE_NAME, small_model(scale=1.0, hidden_size=4, num_layers=1))
    texts = {
        "text.txt": text,
        "copy.txt": text,
        "longer.txt": more[:300] + text + more[300:400],
        "part.txt": text[2000:3500],
        "overlap.txt": more[:3000] + text[:2500],
        "other.txt": more,
    }
    for name, words in texts.items():
        (tmp_path / name).write_text(words)
    for name in texts:
        result = run("eval", "model", "text.txt", "--dynamic", "--tune", name, "--json")
        if name == "other.txt":
            assert result.code == 0
            continue
        assert (result.code, result.out) == (2, ""), name
        assert is_one_line(result.err)
        assert "--tune is part of the text that is scored, or holds it: choose rates on other text" in result.err
    # Of one file, the parts that are not scored may be used, and those are told apart.
    trained = {"settings": {"valid_fraction": 0.25, "test_fraction": 0.25}}
    file = replace(small_model(scale=1.0, hidden_size=4, num_layers=1), training=trained)
    save_model(tmp_path / "trained" / FILE_NAME, file)
    (tmp_path / "start.txt").write_text(text[:3000])
    words = "eval", "trained", "text.txt", "--part", "valid", "--dynamic", "--json"
    assert run(*words, "--tune", "start.txt").code == 0
    assert run(*words, "--tune", "text.txt").code == 2
    (tmp_path / "later.txt").write_text(text[2000:4000])
    assert run(*words, "--tune", "start.txt", "--tune", "later.txt").code == 2


def test_eval_does_not_take_a_part_of_one_text_for_another(run, tmp_path) -> None:
    (tmp_path / "v.txt").write_text(TEXT[:500])
    run("train", "text.txt", "--valid", "v.txt", "--steps", 2, "--out", "apart", *QUICK)
    refused = run("eval", "apart", "text.txt", "--part", "valid")
    assert refused.code == 2
    assert "no valid part was cut" in refused.err
