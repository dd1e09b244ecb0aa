"""Requests as lines of JSON: what is answered is what the calls of the same names return."""

from typing import Any

import pytest

from chargen import Filler, fill, fill_text, generate, score
from chargen.cli import json_lines
from chargen.decoding.pick_engine import new_engine
from chargen.evaluation import short_texts
from chargen.storage.model_file import ModelFile
from tests.cli.dialog import ask, converse
from tests.record_models import record_model
from tests.small_models import small_model

FILE = small_model()
TWO_WAYS = small_model("gru", bidirectional=True, cloze=0.5)


def final(answers: list[dict[str, Any]], id: Any) -> dict[str, Any]:
    (answer,) = (answer for answer in answers if answer["id"] == id and answer.get("done"))
    return {name: value for name, value in answer.items() if name not in ("id", "done")}


@pytest.mark.parametrize(
    ("file", "settings"),
    [
        (FILE, {"prime": "abc", "length": 40}),
        (FILE, {"prime": "a\nb", "num": 3, "length": 20, "temperature": 0.5, "top_k": 3}),
        (FILE, {"echo": False, "stop": ["a", "bc"], "ban": "d", "prime": "ab"}),
        (FILE, {"no_repeat": 4, "min_p": 0.1, "top_p": 0.9, "length": 100}),
        (FILE, {"prime": "aéb", "unknown": "skip", "length": 9}),
        (TWO_WAYS, {"prime": "abc", "reverse": True, "length": 30}),
        (small_model(unit="byte"), {"prime": "é", "length": 30, "num": 2}),
        (record_model(end=2.0), {"label": "sun", "prime": "a"}),
        (record_model(end=2.0), {"num": 5, "unique": True, "best_of": 2, "length": 20}),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_texts_are_those_of_generate(file: ModelFile, settings: dict[str, Any], stream: bool) -> None:
    stream = stream and not settings.get("reverse", False)
    answers = ask(file, {"id": 7, "do": "generate", "seed": 5, "stream": stream, **settings})
    expected = generate(file, seed=5, **settings)
    answer = final(answers, 7)
    assert answer["seed"] == 5
    assert answer["texts" if "num" in settings else "text"] == expected
    texts = [""] * settings.get("num", 1)
    for piece in answers[:-1]:
        assert piece.keys() == {"id", "sample", "piece"}
        texts[piece["sample"]] += piece["piece"]
    if stream:
        assert texts == (expected if "num" in settings else [expected])
    else:
        assert len(answers) == 1


def test_what_stopped_a_text_and_a_seed_that_was_drawn() -> None:
    answer = final(ask(FILE, {"id": 1, "do": "generate", "stop": ["a"], "temperature": 2}), 1)
    assert answer["stopped"] == answer["text"].endswith("a")
    again = final(ask(FILE, {"id": 1, "do": "generate", "stop": ["a"], "temperature": 2, "seed": answer["seed"]}), 1)
    assert again == answer
    assert final(ask(FILE, {"id": 1, "do": "generate", "length": 3}), 1)["stopped"] is False


@pytest.mark.parametrize("longest", [-1, short_texts.MAX_IDS], ids=["torch", "engines"])
def test_scores_are_those_of_score_alone_or_together(longest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(short_texts, "MAX_IDS", longest)
    texts = ["abc", "", "a é b", "hhh" * 30, "a\r\nb"]
    requests = [{"id": f"{number}", "do": "score", "text": text} for number, text in enumerate(texts)]
    answers = ask(TWO_WAYS, *requests)
    assert [answer["id"] for answer in answers] == [request["id"] for request in requests]
    for answer, request, together in zip(answers, requests, score(TWO_WAYS, texts), strict=True):
        alone = final(ask(TWO_WAYS, request), request["id"])
        assert final(answers, request["id"]).keys() == alone.keys()
        for name in ("text", "length", "scored", "unlikely", "unknown", "by"):
            assert alone[name] == answer[name]
        assert answer["text"] == "".join(each.character for each in together)
        for judge in ("forward", "backward", "cloze"):
            values = [getattr(each, judge) for each in together]
            for figures in (answer, alone):
                shown = figures.get(judge, [])
                assert [value is None for value in shown] == [value is None for value in values[: len(shown)]]
                known = [value for value in shown if value is not None]
                assert known == pytest.approx([value for value in values if value is not None], abs=0.0051)
        assert answer["log_prob_forward"] == pytest.approx(together.totals["log_prob_forward"], abs=1e-4)
        assert {int(at): list(named) for at, named in answer["alternatives"].items()} == {
            at: [character for character, _ in each.alternatives] for at, each in enumerate(together) if each.unlikely
        }


def test_settings_of_a_score_and_one_wrong_text_among_others() -> None:
    file = record_model()
    answers = ask(
        file,
        {"id": 1, "do": "score", "text": "abc", "label": "sun", "by": "backward", "threshold": 0.9, "brief": True},
        {"id": 2, "do": "score", "text": "abc", "label": "moon", "by": "backward", "threshold": 0.9},
        {"id": 3, "do": "score", "text": "a!c", "unknown": "error"},
        {"id": 4, "do": "score", "text": "abc", "unknown": "error", "num_alternatives": 0},
        {"id": 5, "do": "score", "text": "\ud800"},
    )
    assert [answer["id"] for answer in answers] == [1, 2, 3, 4, 5]
    totals = score(file, "abc", label="sun", by="backward", threshold=0.9).totals
    rounded = {name: pytest.approx(value) if isinstance(value, float) else value for name, value in totals.items()}
    assert final(answers, 1) == {"by": "backward", "threshold": 0.9, **rounded}
    assert "moon" in answers[1]["error"]["message"]
    assert (answers[2]["error"]["kind"], answers[4]["error"]["kind"]) == ("data", "data")
    assert "'!'" in answers[2]["error"]["message"]
    assert not any(answers[3]["alternatives"].values())


def test_many_waiting_texts_are_cut_into_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    scored = json_lines.Session.score
    monkeypatch.setattr(short_texts, "MAX_IDS", 14)
    monkeypatch.setattr(
        json_lines.Session, "score", lambda self, requests: sizes.append(len(requests)) or scored(self, requests)
    )
    requests = [{"id": number, "do": "score", "text": "abcd"} for number in range(9)]
    long = {"id": 9, "do": "score", "text": "a" * 30}
    lines = converse(FILE, [*requests, long, requests[0]], lambda answer: None if answer["id"] == 9 else [])
    assert [answer["id"] for answer in lines] == [*range(10), 0]
    assert max(sizes) <= 2
    assert sum(sizes) == 11
    assert len({str(answer["forward"]) for answer in lines[:9]}) == 1


def test_gaps_are_those_of_fill_text_and_fill() -> None:
    text = {"text": "ab ___ de ___{2-3}", "length": 2, "num": 2, "seed": 3, "particles": 16, "temperature": 0.7}
    pair = {"before": "ab ", "after": " de", "max_length": 3, "seed": 4}
    answers = ask(TWO_WAYS, {"id": 1, "do": "fill", **text}, {"id": 2, "do": "fill", **pair})
    ways = fill_text(TWO_WAYS, **text)
    assert final(answers, 1) == {"seed": 3, "ways": [way.describe() for way in ways]}
    gap = fill(TWO_WAYS, **pair).alternatives[0].text
    (way,) = final(answers, 2)["ways"]
    assert (way["text"], way["gaps"][0]["text"]) == (f"ab {gap} de", gap)


def test_a_shared_engine_fills_as_one_of_its_own() -> None:
    session = json_lines.Session(TWO_WAYS)
    engines = {direction: session.engine(direction) for direction in ("forward", "backward")}
    for seed in range(3):
        shared, own = Filler(TWO_WAYS, seed=seed, engines=engines), Filler(TWO_WAYS, seed=seed)
        assert shared.fill("abab", "ba", 0, 9) == own.fill("abab", "ba", 0, 9)


def test_the_ready_line_and_info_tell_what_the_model_is() -> None:
    file = record_model()
    (info,) = ask(file, {"id": None, "do": "info"})
    assert info["protocol"] == 1
    assert info["labels"] == ["sea", "sun"]
    assert info["records"] is True
    assert info["unit"] == "character"
    assert info["characters"] == file.vocabulary.characters
    assert info["config"]["bidirectional"] is True


def test_a_score_does_not_wait_for_a_text_and_texts_wait_for_each_other() -> None:
    asked = False

    def reply(answer: dict[str, Any]) -> list[Any] | None:
        nonlocal asked
        if asked:
            return []
        asked = True
        return [{"id": "score", "do": "score", "text": "abc"}, {"id": "info", "do": "info"}]

    texts = [{"id": number, "do": "generate", "length": 3000, "stream": True} for number in range(2)]
    answers = converse(FILE, texts, lambda answer: reply(answer) if answer["id"] != 1 or "done" not in answer else None)
    ended = [answer["id"] for answer in answers if answer.get("done")]
    assert ended == ["score", "info", 0, 1]
    first_of_second = next(at for at, answer in enumerate(answers) if answer["id"] == 1)
    assert all(answer["id"] != 0 for answer in answers[first_of_second:])


def test_cancel_ends_what_is_written_and_what_waits() -> None:
    then = [{"id": f"c{id}", "do": "cancel", "request": id} for id in (1, 2, "x", 1)]
    then.append({"id": 4, "do": "generate", "prime": "a", "length": 0})

    def reply(answer: dict[str, Any]) -> list[Any] | None:
        if "piece" in answer:
            sent, then[:] = then[:], []
            return sent
        cancelled.append(answer)
        return None if answer["id"] == 4 else []

    cancelled: list[dict[str, Any]] = []
    endless = [{"id": id, "do": "generate", "length": 1_000_000, "stream": id == 1} for id in (1, 2)]
    converse(FILE, endless, reply)
    error = {"message": "cancelled", "setting": None, "kind": "cancelled"}
    assert cancelled[:5] == [
        {"id": 1, "done": True, "error": error},
        {"id": "c1", "done": True, "cancelled": 1},
        {"id": 2, "done": True, "error": error},
        {"id": "c2", "done": True, "cancelled": 1},
        {"id": "cx", "done": True, "cancelled": 0},
    ]
    assert [answer["id"] for answer in cancelled[5:]] == ["c1", 4]
    assert cancelled[-1]["text"] == "a"


def test_a_text_that_goes_on_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    engine = type(new_engine(FILE, "cpu"))
    own = engine._read

    def count(self: Any, ids: Any, counts: Any, *arguments: Any) -> Any:
        read.append(int(counts.sum()))
        return own(self, ids, counts, *arguments)

    monkeypatch.setattr(engine, "_read", count)
    primes = ["ab" * 200, "ab" * 200 + "c", "ab" * 200 + "cd"]
    answers = ask(
        FILE, *({"id": len(prime), "do": "generate", "prime": prime, "length": 1, "seed": 1} for prime in primes)
    )
    assert 400 < sum(read) < 450
    for prime in primes:
        assert final(answers, len(prime))["text"] == generate(FILE, prime, length=1, seed=1)
