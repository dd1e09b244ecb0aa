"""What is true of each character: beside a slow walk, for several texts, from either end, and by hand."""

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargen.errors import SettingError
from chargen.insight.features import text_features
from tests import naive

LETTERS = "aB1 \t\n\"'()[}“”‘’«»."
texts = st.text(LETTERS, max_size=60)


def shown(values: Any) -> str:
    return "".join("x" if value else "." for value in values)


@given(texts)
def test_a_slow_walk_says_the_same(text: str) -> None:
    features, walked = text_features([text]), naive.features(text)
    for name in walked[0] if walked else ():
        expected = np.array([row[name] for row in walked])
        if "line" in name or name == "indentation":
            assert name not in features or "\n" in text
        if name in features:
            np.testing.assert_allclose(features[name].astype(float), expected.astype(float), rtol=1e-6, err_msg=name)
        elif "\n" in text or not ("line" in name or name == "indentation"):
            assert (expected == expected[0]).all(), f"{name} is left out, though it changes"


@given(st.lists(texts, min_size=2, max_size=5), st.sampled_from(["forward", "backward"]))
def test_no_text_changes_the_features_of_another(several: list[str], direction: str) -> None:
    together, start = text_features(several, direction=direction), 0
    for text in several:
        inside, rows = [name for name in together if name.startswith("inside")], naive.features(text)
        rows = rows if direction == "forward" else [dict.fromkeys(inside, False), *rows[:-1]][: len(rows)]
        walked = {name: np.array([row[name] for row in rows], bool) for name in inside}
        for name, values in (walked | text_features([text], direction=direction)).items():
            assert np.array_equal(together[name][start : start + len(text)], values), name
        start += len(text)


@given(texts)
def test_read_backward_a_state_knows_what_stands_behind_it(text: str) -> None:
    forward, backward = (text_features([text], direction=direction) for direction in ("forward", "backward"))
    mirrored = text_features([text[::-1]])
    for name in ("line length so far", "position in line", "word start", "upper case"):
        assert (name in backward) == (name in mirrored)
        if name in backward:
            assert np.array_equal(backward[name], mirrored[name][::-1]), name
    rows = naive.features(text)
    for name in ("inside quotes", "inside brackets", "inside single quotes", "inside triple quotes"):
        inside = [bool(row[name]) for row in rows]
        expected = [False, *inside[:-1]] if inside else []
        got = backward.get(name, np.array([expected[0]] * len(text) if expected else [], bool))
        assert got.tolist() == expected, name
        assert shown(forward.get(name, inside)) == shown(inside) or name not in forward


def test_by_hand() -> None:
    assert shown(text_features(['a "b c" d'])["inside quotes"]) == "..xxxx..."
    assert shown(text_features(['a "b c" d'], direction="backward")["inside quotes"]) == "...xxxx.."
    assert shown(text_features(["f(a[0]) x"])["inside brackets"]) == ".xxxxx..."
    assert shown(text_features(["„Ja“, sie"])["inside quotes"]) == "xxx......"
    assert shown(text_features(["「はい」と"])["inside quotes"]) == "xxx.."
    assert shown(text_features(["don't 'no' 's\nx'"])["inside single quotes"]) == "......xxx..xxx.x"
    assert shown(text_features(['"a\n\nb" c "d'])["inside quotes"]) == "xxxx.xxxx.."
    code = '"""Do.\n\nMore."""\nx = "a"'
    assert shown(text_features([code])["inside triple quotes"]) == "..xxxxxxxxxxxxx" + "." * 9
    assert shown(text_features([code])["inside quotes"]) == "." * 21 + "xx."
    assert text_features(["a\n  b\n"])["indentation"].tolist() == [0, 0, 1, 2, 2, 2]
    assert text_features(["a\n  b\n"], direction="backward")["indentation"].tolist() == [0, 0, 2, 2, 2, 2]
    records = text_features(["ab", "", "c"], labels=["sea", "sun", "sun"])
    assert records["record length so far"].tolist() == [1, 2, 1]
    assert records["position in record"].tolist() == [0.5, 1, 1]
    assert shown(records["label sea"]) == "xx."
    assert shown(records["label sun"]) == "..x"
    named = text_features(["ab 12", "3 c"], patterns={"number": "[0-9]+", "two": "2 *3"})
    assert shown(named["number"]) == "...xxx.."
    assert "two" not in named, "nothing is matched across texts"
    assert text_features([""]) == {}
    assert text_features(["aaaa"]).keys() == {"word start"}


@pytest.mark.parametrize("pattern", ["(", "*", 3, None])
def test_what_is_no_regular_expression_is_refused_in_one_line(pattern: Any) -> None:
    with pytest.raises(SettingError, match=r"pattern 'odd': .* is no regular expression: ") as refused:
        text_features(["abc"], patterns={"odd": pattern})
    assert "\n" not in str(refused.value)


def test_a_long_text_takes_no_time() -> None:
    text = ("    def f(a, b):\n        return [a, 'b', \"c\"]\n\n" * 3000)[:100_000]
    begin = time.process_time()
    assert len(text_features([text])) >= 7
    assert time.process_time() - begin < 1
