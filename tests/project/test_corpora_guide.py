"""The guide to corpora shows what the list prints, and the entropies that languages have."""

import math
import re
from pathlib import Path

from chargen.data.made_languages import LANGUAGES
from tests.commands import Run

PAGE = (Path(__file__).parents[2] / "docs/pages/guides/corpora.md").read_text("utf-8")


def test_the_table_of_corpora_is_the_list(run: Run) -> None:
    shown = re.search(r"^name  .*?(?=^```)", PAGE, re.DOTALL | re.MULTILINE)[0]
    size = re.compile(r"(?m)(^python *) [\d.]+ MB")  # which depends on the version of Python
    assert size.sub(r"\1", shown) == size.sub(r"\1", run("corpus", "list").out)


def test_the_table_of_languages_has_their_entropies() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \| `(.*)` \| (.*) \| (.*) \|$", PAGE, re.MULTILINE)
    assert [name for name, *_ in rows] == [*LANGUAGES]
    for name, text, nats, rate in rows:
        language = LANGUAGES[name]
        assert language.log_prob(text) > -math.inf
        assert nats == f"{language.nats_per_string:.4f}"
        exact = language.nats_per_character
        assert rate == f"{exact:.4f} ({exact / math.log(2):.4f})"
