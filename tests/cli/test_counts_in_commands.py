"""Commands with a model that has counts: what they tell of both, and what the network does alone."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

import chargen
from chargen.storage.model_file import FILE_NAME, ModelFile, read_model, save_model
from tests.commands import Run
from tests.small_models import small_model, with_counts

TEXT = "bad cab face\nhead bead deaf\nabc abc abd\n" * 4
OTHER = "bad face\nabd cab\n"
FIGURES = {"step": 7, "epoch": 1.5, "valid_loss": 1.25, "valid_whole": True, "valid_loss_network": 1.75}


@pytest.fixture(autouse=True)
def models(run: Run) -> None:
    """`counted` reads both ways and has counts, `plain` is the same without, `forward` has one of its directions."""
    file = with_counts(replace(small_model(scale=1.5, bidirectional=True), begin="\n", training=FIGURES), TEXT)
    save_model(Path("counted", FILE_NAME), file)
    save_model(Path("plain", FILE_NAME), replace(file, mixtures={}))
    save_model(Path("forward", FILE_NAME), replace(file, mixtures={"forward": file.mixtures["forward"]}))
    Path("text.txt").write_text(OTHER)


def fields(run: Run, *arguments: object) -> dict:
    result = run(*arguments, "--json")
    assert result.code == 0
    return json.loads(result.out)


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_eval_tells_both_losses(run: Run, direction: str) -> None:
    words = "text.txt", "--direction", direction
    plain, both = fields(run, "eval", "plain", *words), fields(run, "eval", "counted", *words)
    assert both.keys() - plain.keys() == {"network_nats_per_character"}
    assert both["network_nats_per_character"] == pytest.approx(plain["nats_per_character"], rel=1e-6)
    assert both["nats_per_character"] != pytest.approx(plain["nats_per_character"], rel=1e-2)
    assert both["nats_per_character"] == both["nats"] / both["characters"]
    assert fields(run, "eval", "counted", *words, "--device", "cpu", "--precision", "fp32") == both
    result = run("eval", "counted", *words)
    assert f"{both['nats_per_character']:.4f} nats per character\n" in result.out
    alone = f"{plain['nats_per_character']:.4f} nats, {plain['bits_per_character']:.4f} bits per character"
    assert result.err.count(f"without counts: {alone}\n") == 1
    assert "without counts" not in run("eval", "plain", *words).err
    one_way = fields(run, "eval", "forward", *words)
    assert one_way == (both if direction == "forward" else plain)


def test_info_tells_of_counts_and_both_losses(run: Run) -> None:
    file = read_model("counted")
    counts = fields(run, "info", "counted")["counts"]
    trees = {direction: mixture.tree for direction, mixture in file.mixtures.items()}
    expected = {
        direction: {"order": tree.order, "contexts": len(tree.labels), "predictions": len(tree.ids)}
        for direction, tree in trees.items()
    }
    assert counts == expected
    assert fields(run, "info", "plain")["counts"] == {}
    shown = run("info", "counted").out
    for direction, tree in trees.items():
        assert f"{direction} of order 5: {len(tree.labels)} contexts, {len(tree.ids)} predictions, " in shown
    assert re.search(r"^valid loss +1\.2500 nats.*; 1\.7500 nats without counts$", shown, re.MULTILINE)
    assert "counts" not in run("info", "plain").out
    assert run("export", "counted", "alone.safetensors", "--no-counts").code == 0
    alone = run("info", "alone.safetensors").out
    assert re.search(r"^valid loss +1\.7500 nats", alone, re.MULTILINE)
    assert "counts" not in alone


def test_score_adds_up_to_the_loss(run: Run) -> None:
    totals = fields(run, "score", "counted", "--text", OTHER[1:])
    text = chargen.evaluate("counted", "\n" + OTHER[1:])
    assert totals["log_prob_forward"] == pytest.approx(-text.nats, abs=1e-3)
    assert sum(totals["forward"]) == pytest.approx(-text.nats, abs=0.01 * len(OTHER))
    on_device = fields(run, "score", "counted", "--text", OTHER[1:], "--device", "cpu")
    assert on_device == totals
    plain, one_way = (fields(run, "score", name, "--text", OTHER[1:]) for name in ("plain", "forward"))
    assert totals.keys() == plain.keys()
    assert one_way["forward"] == totals["forward"]
    assert one_way["backward"] == plain["backward"]
    assert one_way["cloze"] == totals["cloze"] == plain["cloze"]
    lines = [json.loads(line) for line in run("score", "counted", "text.txt", "--by-line", "--json").out.splitlines()]
    for line, record in zip(lines, chargen.score_records("counted", OTHER.splitlines()), strict=True):
        assert line["log_prob"] == pytest.approx(record.log_prob, abs=1e-3)


def test_writing_leaves_all_to_the_network_on_request(run: Run) -> None:
    def texts(model: str, *more: object) -> str:
        result = run("sample", model, "--seed", 3, "--num", 4, "--length", 60, *more)
        assert result.code == 0
        return result.out

    plain = texts("plain")
    assert texts("counted", "--counts-max-copy", 0) == plain == texts("plain", "--counts-max-copy", 31)
    assert texts("counted") == plain, "counts make no better texts"
    assert texts("counted", "--counts-max-copy", 8) == texts("counted", "--counts-max-copy", 31)
    assert len({plain, texts("counted", "--counts-max-copy", 31), texts("counted", "--counts-max-copy", 1)}) == 3
    for value in (-1, 32, "x"):
        assert run("sample", "counted", "--counts-max-copy", value).code == 2
    fill = "--before", "bad ", "--after", " face", "--length", 3, "--seed", 1, "--num", 5, "--format", "jsonl"
    assert run("fill", "counted", *fill, "--counts-max-copy", 0).out != run("fill", "counted", *fill).out
    ways = [[json.loads(line) for line in run("fill", *words).out.splitlines()]
            for words in (("plain", *fill), ("counted", *fill, "--counts-max-copy", 0))]  # fmt: skip
    assert [way["text"] for way in ways[0]] == [way["text"] for way in ways[1]]


def test_requests_have_the_defaults_of_commands(run: Run) -> None:
    settings = {"prime": "bad ", "length": 40, "seed": 5}
    asked = [{}, {"counts_max_copy": 0}, {"counts_max_copy": 2}, {"counts_max_copy": 32}]
    lines = [json.dumps({"id": number, "do": "generate", **settings, **more}) for number, more in enumerate(asked)]
    lines.append(json.dumps({"id": 4, "do": "score", "text": "bad cab"}))
    result = run("write", "counted", "--json-lines", stdin="\n".join(lines).encode() + b"\n")
    answers = {answer["id"]: answer for answer in map(json.loads, result.out.splitlines()[1:])}
    for number, more in enumerate(asked[:3]):
        assert answers[number]["text"] == chargen.generate("counted", **settings, **more)
    assert answers[1]["text"] == chargen.generate("plain", **settings)
    assert answers[3]["error"]["setting"] == "counts_max_copy"
    totals = chargen.score("counted", "bad cab").totals
    assert answers[4]["log_prob_forward"] == pytest.approx(totals["log_prob_forward"], abs=1e-4)


def test_an_inspection_is_of_the_network_alone_and_says_so(run: Run) -> None:
    pages = []
    for name in ("plain", "counted"):
        result = run("inspect", name, "text.txt", "--out", f"{name}.html")
        assert result.code == 0
        said = "note: this is what to expect of the network alone, without the counts beside it\n"
        assert result.err.count(said) == (name == "counted")
        pages.append(Path(f"{name}.html").read_text("utf-8"))
    words = "; by the network alone, without the counts beside it"
    assert pages[1].count(words) == 1
    assert pages[1].replace(words, "").replace("counted", "plain") == pages[0]
    summary = [run("inspect", name, "text.txt").out for name in ("plain", "counted")]
    assert summary[0] == summary[1]


def test_characters_that_the_model_does_not_know_are_no_part_of_contexts(run: Run) -> None:
    Path("odd.txt").write_text("b\xe9ad \u6f22cab\n", "utf-8")
    Path("same.txt").write_text("bad cab\n")
    odd, same = (fields(run, "eval", "counted", name) for name in ("odd.txt", "same.txt"))
    assert odd["skipped"] == 2
    assert odd["nats"] == same["nats"]
    assert odd["network_nats_per_character"] == same["network_nats_per_character"]


def test_a_tree_of_nothing_but_single_characters_works_everywhere(run: Run) -> None:
    file: ModelFile = with_counts(small_model(scale=1.5, bidirectional=True), TEXT, max_bytes=0)
    save_model(Path("tiny", FILE_NAME), file)
    assert fields(run, "info", "tiny")["counts"]["forward"]["contexts"] == 1
    assert run("sample", "tiny", "--seed", 1, "--length", 20).code == 0
    assert run("fill", "tiny", "--before", "a", "--after", "b", "--length", 2, "--seed", 1).code == 0
    assert fields(run, "eval", "tiny", "text.txt")["network_nats_per_character"] > 0
    assert fields(run, "score", "tiny", "--text", "abc")["scored"] == 3
    assert run("write", "tiny", "--json-lines", stdin=b'{"do": "generate", "length": 3}\n').code == 0
