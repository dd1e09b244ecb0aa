"""`chargen corpus list` and `chargen corpus get`, and a training that needs a corpus."""

import io
import json
import zipfile
from pathlib import Path

import pytest

import chargen
from chargen.storage.model_file import read_model
from tests.commands import QUICK
from tests.web import TALE, Web, name_corpus, serve

SIZE = f"{len(TALE):,} bytes"


def test_the_list_has_a_row_for_each_corpus_that_fits_a_terminal(run, tale: chargen.NamedCorpus) -> None:
    heading, *rows = run("corpus", "list").out.splitlines()
    assert heading.split() == ["name", "size", "here", "licence", "what"]
    assert [row.split()[0] for row in rows] == [corpus.name for corpus in chargen.list_corpora()]
    assert max(map(len, rows)) < 80
    for row, corpus in zip(rows, chargen.list_corpora(), strict=True):
        assert row[heading.index("here") :].split()[0] == ("yes" if corpus.name == "python" else "no")
        assert row[heading.index("licence") : heading.index("what")].strip() == corpus.licence
        assert row[heading.index("what") :] == corpus.what
    run("corpus", "get", "tale")
    assert run("corpus", "list").out.splitlines()[-1] == "tale            0.0 MB  yes   none            a tale"


def test_the_list_as_json_has_all_that_is_known(run, tale: chargen.NamedCorpus) -> None:
    lines = [json.loads(line) for line in run("corpus", "list", "--json").out.splitlines()]
    assert [line["name"] for line in lines] == [corpus.name for corpus in chargen.list_corpora()]
    assert lines[-1] == {
        "name": "tale", "what": "a tale", "licence": "none", "address": tale.address, "size": len(TALE),
        "sha256": tale.sha256, "settings": {"unit": "byte"}, "figures": ["a record"], "path": str(tale.path),
        "here": False,
    }  # fmt: skip
    assert lines[0]["size"] > 2_000_000
    assert lines[0]["path"] is None


def test_getting_prints_where_the_file_is_and_says_from_where_it_comes(run, tale: chargen.NamedCorpus) -> None:
    done = run("corpus", "get", "tale", "python")
    assert done.code == 0
    assert done.out.splitlines()[0] == str(tale.path)
    assert len(done.out.splitlines()) == 1 + len(chargen.get_corpus("python"))
    assert done.err.splitlines() == [
        f"getting  tale: {SIZE}, none, from {tale.address}",
        "others   a record",
        "now      chargen train tale --unit byte",
        "now      chargen train python",
    ]
    again = run("corpus", "get", "tale", "--out", "copy.txt", "-q", "--offline")
    assert (again.code, again.out, again.err) == (0, "copy.txt\n", "")
    assert Path("copy.txt").read_bytes() == TALE


def test_exit_codes_tell_failures_apart(run, tale: chargen.NamedCorpus, server: Web) -> None:
    unknown = run("corpus", "get", "tael")
    assert (unknown.code, unknown.err) == (3, "chargen: there is no corpus 'tael'; did you mean tale?\n")
    offline = run("corpus", "get", "tale", "--offline")
    assert offline.code == 3
    assert "nothing is fetched (--offline or CHARGEN_OFFLINE): save http" in offline.err
    both = run("corpus", "get", "tale", "python", "--out", "copy.txt")
    assert (both.code, both.err[:49]) == (2, "chargen: --out is a file for one corpus, and ther")
    server.script(serve(TALE, cut=9))
    broken = run("corpus", "get", "tale")
    assert broken.code == 1
    assert f"after 9 of {SIZE}" in broken.last
    assert " by hand, or name a file of your own, or python" in broken.last


def test_training_gets_what_it_needs_and_says_so(run, tale: chargen.NamedCorpus, server: Web) -> None:
    refused = run("train", "tale", "--steps", "1", *QUICK, "--offline")
    assert refused.code == 3
    assert refused.one_line()
    assert not Path("checkpoints").exists()
    for arguments in (["tale"], ["text.txt", "--valid", "tale"], ["text.txt", "--test", "tale"]):
        tale.path.unlink(missing_ok=True)
        done = run("train", *arguments, "--steps", "1", *QUICK)
        assert done.code == 0, done.err
        assert done.err.startswith(f"getting  tale: {SIZE}, none, from {tale.address}\n")
    assert Path("checkpoints/tale/model.safetensors").exists()
    assert "getting" not in run("train", "tale", "--steps", "1", *QUICK).err
    assert len(server.asked) == 3
    tale.path.unlink()
    missing = run("eval", "checkpoints/tale", "tale")
    assert (missing.code, missing.last) == (
        3, "chargen: the corpus tale is not on this machine: get it with chargen corpus get tale"
    )  # fmt: skip


def test_what_was_fetched_stays_when_encoded_texts_are_cleared(run, tale: chargen.NamedCorpus, server: Web) -> None:
    assert run("train", "tale", "--steps", "1", *QUICK).code == 0
    assert "1 text removed" in run("corpus", "cache", "--clear").err
    assert tale.path.read_bytes() == TALE
    assert "all are whole" in run("corpus", "cache", "--verify").err
    assert run("train", "tale", "--steps", "1", *QUICK, "--offline").code == 0
    assert server.asked == [""]


@pytest.mark.parametrize("packed", [False, True])
def test_a_corpus_may_be_packed(run, packed: bool, server: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as archive:
        archive.writestr("tale/one.txt", TALE)
    corpus = name_corpus(server, monkeypatch, file.getvalue(), "tale.zip")
    assert run("train", "tale", "--steps", "1", *QUICK).code == 0
    assert corpus.path.read_bytes() == file.getvalue()
    assert read_model("checkpoints/tale").vocabulary.characters == "".join(sorted(set(TALE.decode())))
