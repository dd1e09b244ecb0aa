"""The page of an inspection: what stands in it, and that nothing of a text or a model becomes markup."""

import base64
import hashlib
import json
import math
import re
import sys
import unicodedata
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import chargen
from chargen.data.code_points import END_MARK
from chargen.errors import SettingError
from chargen.evaluation.per_character import name_id
from chargen.insight.page_data import MISSING, SCALE, show_characters, write_data
from tests.evaluation.judges import model, text_of
from tests.insight.pages import data_of, inspected, inspection_of, payloads, unpack
from tests.record_models import record_model


class Census(HTMLParser):
    """The elements of a page with their attributes, and its policy."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, tuple[str, ...]]] = []
        self.policy = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.elements.append((tag, tuple(named)))
        self.policy = named.get("content") or "" if "http-equiv" in named else self.policy


def test_the_page_holds_what_was_predicted() -> None:
    file, text = model("gru", "character", "two"), text_of("character", 300)
    inspection = inspection_of(file, [text])
    data = data_of(inspection.page())
    assert (data["text"], data["odd"], data["ends"]) == (text, {}, [])
    assert [judge["name"] for judge in data["judges"]] == ["cloze", "forward", "backward"]
    for judge in data["judges"]:
        expected = inspection.predictions
        bits = unpack(judge["bits"], "<u2") / SCALE
        assert bits == pytest.approx(-expected.log_probs[judge["name"]] / math.log(2), abs=1 / SCALE)
        names = [data["names"][number] for number in unpack(judge["likeliest"], "<u4")]
        assert names == [name_id(file.vocabulary, int(each)) for each in expected.likeliest[judge["name"]].ravel()]
        shares = unpack(judge["shares"], "<u2") / MISSING
        assert shares == pytest.approx(expected.probabilities[judge["name"]].ravel(), abs=1e-5)
    own = [data["names"][number] if number >= 0 else None for number in unpack(data["ids"], "<i4")]
    assert {*own} - {None} <= {repr(character) for character in text}
    assert [one is None or one == repr(character) for one, character in zip(own, text, strict=True)] == [True] * 300


def test_records_end_where_they_end() -> None:
    data = data_of(inspection_of(record_model(), ["abc", "d"], labels=["sun", None]).page())
    assert data["text"] == "abc\nd\n"
    assert data["ends"] == [3, 5]
    assert data["odd"] == {"3": "the end", "5": "the end"}
    assert "the end" in data["names"]
    (cloze,) = (judge for judge in data["judges"] if judge["name"] == "cloze")
    assert (unpack(cloze["bits"], "<u2") == MISSING).tolist() == [False, False, False, True, False, True]


def test_a_page_of_nothing_is_a_page() -> None:
    assert data_of(inspected("").page())["text"] == ""


def test_payloads_change_no_element_and_no_attribute() -> None:
    hostile = "\n".join(payloads())
    plain = "".join("a" if character.isprintable() else character for character in hostile)
    pages = [inspected(text, name=name).page() for text, name in ((plain, "a"), (hostile, hostile[:5000]))]
    bare, page = map(Census, pages)
    rows = [element for element in page.elements if element not in bare.elements]
    assert {tag for tag, _ in rows} <= {"tr", "td", "svg", "rect", "text"}, "a class of characters more"
    kept = [[element for element in each.elements if element[0] not in "tr td svg rect text"] for each in (bare, page)]
    assert kept[0] == kept[1]
    assert data_of(pages[1])["text"] == show_characters(hostile)[0]


def test_the_policy_allows_this_style_and_this_script_only() -> None:
    page = inspected("abc").page()
    census = Census(page)
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)]
    assert census.policy == (
        f"default-src 'none'; style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'; "
        "base-uri 'none'; form-action 'none'"
    )
    names = {name for _, names in census.elements for name in names}
    assert not {name for name in names if name.startswith("on")} | names & {"style", "src", "href"}


def test_hidden_units_are_on_the_page_to_one_step_in_32() -> None:
    file, texts = record_model(), ["abc def", "fade", "a bad cab " * 30]
    inspection = chargen.inspect(file, texts, patterns={"an <a>": "a"})
    data = data_of(inspection.page())
    hidden, shown = inspection.activations.hidden[0].astype(float), [at not in data["ends"] for at in range(316)]
    (layer,) = data["layers"]
    values = unpack(layer["packed"], "i1").reshape(12, layer["stop"])
    assert layer["stop"] == len(data["text"]) == 314
    assert (values[:, data["ends"]] == -128).all()
    assert values[:, shown[:314]] / 32 == pytest.approx(hidden.T, abs=1 / 60)
    assert [neuron["name"] for neuron in data["neurons"]] == [str(neuron) for neuron in inspection.neurons]
    for neuron, stored in zip(inspection.neurons, data["neurons"], strict=True):
        assert (unpack(stored["packed"], "i1") == values[neuron.unit]).all()
    assert "an &lt;a&gt;" in inspection.page()
    neuron = inspection.neurons[0]
    command = f"chargen sample &#39;the model&#39; --set-neuron 1:{neuron.unit}={neuron.on:.2f}"
    assert command in inspection.page()
    for gate, saturation in inspection.saturation.items():
        assert f"<td>1</td><td>{gate}</td><td" in inspection.page()
        assert f"{saturation.by_layer[0][0]:.1%}" in inspection.page()


def test_as_many_characters_have_hidden_units_as_there_is_room_for() -> None:
    inspection = chargen.inspect(model("lstm", "character", "one"), text_of("character", 3000))
    arguments = inspection.predictions, inspection.file.vocabulary, inspection.activations.hidden, inspection.neurons
    bare, whole = (len(write_data(*arguments, room=room)) for room in (0, 10**9))
    stops = []
    for share in (1.01, 0.9, 0.5, 0.1, 0.0):
        room = int(bare + (whole - bare) * share) + 100
        data = write_data(*arguments, room=room)
        stops.append(json.loads(data)["layers"][0]["stop"])
        assert len(data) <= room
    assert stops[0] == 3000 > stops[1] > stops[2] > stops[3] > stops[4] >= 0


@given(st.text(st.characters() | st.sampled_from("\r\n\t\x1b\u202e\u200d\udfff\udc80\u3000漢ש")))
def test_what_is_shown_has_as_many_characters_and_none_that_hides(text: str) -> None:
    shown, odd = show_characters(text)
    assert len(shown) == len(text)
    for at, (character, visible) in enumerate(zip(text, shown, strict=True)):
        seen = unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp") or character in "\n\t\u200c\u200d"
        assert (visible == character) == seen
        assert (at in odd) == (not seen)
        if not seen:
            assert visible == ("\n" if character == END_MARK else "\u25a1")
            assert odd[at].isprintable()


def test_a_notebook_shows_the_page_in_a_frame_of_its_own() -> None:
    shown = inspected("a<b>c", characters="<>")._repr_html_()
    (element,) = Census(shown).elements
    assert element == ("iframe", ("sandbox", "style", "srcdoc"))
    assert shown.count("<") == 2


def test_without_jinja2_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(SettingError, match=r"pip install 'chargen\[report\]'"):
        inspected("abc").page()


def test_summaries_are_those_of_the_characters() -> None:
    inspection = inspected("abc\nab", bidirectional=True)
    costs = inspection.predictions.log_probs["forward"]
    assert inspection.bits["forward"] == pytest.approx(-costs.mean() / math.log(2), rel=1e-5)
    assert inspection.by_class["forward"].nats.sum() == pytest.approx(-costs.sum(), rel=1e-5)
    assert inspection.calibration["cloze"].counts.sum() == 6
    assert repr(inspection).startswith("Inspection('a model', 6 characters, bits: cloze ")
    assert math.isnan(inspected("").bits["forward"])
    assert np.isnan(inspected("").by_class["forward"].means).all()
