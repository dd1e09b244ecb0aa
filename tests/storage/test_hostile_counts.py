"""Files whose counts were changed and that were signed anew: they are refused, or looked up inside their arrays."""

from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from chargen.errors import ModelFileError
from chargen.storage.model_file import read_model
from tests.storage.changes import mutants
from tests.storage.counted_files import FILES
from tests.storage.drafts import Draft
from tests.trees import NAMES, check_lookups, contexts_of


def complaint(draft: Draft, path: Path) -> str:
    """The one line in which a draft is refused."""
    path.write_bytes(draft.signed())
    with pytest.raises(ModelFileError) as caught:
        read_model(path)
    message = str(caught.value)
    assert caught.value.exit_code == 4
    assert len(message.splitlines()) == 1
    assert len(message) < 500
    return message


def draft_of(kind: str = "one way") -> Draft:
    file = FILES[kind]()
    return Draft(dict(file.all_arrays), file.describe())


DESCRIBED = [
    ("format number does not fit its vocabulary, its counts", lambda d: d.update(format=1)),
    ("format number does not fit its vocabulary, its counts", lambda d: d.update(format=2)),
    ("format 4 is not known to this version", lambda d: d.update(format=4)),
    ("format number does not fit its vocabulary, its counts", lambda d: d.update(mixtures={})),
    ("format number does not fit its vocabulary, its counts", lambda d: d.pop("mixtures")),
    ("its counts are not those of its directions", lambda d: d.update(mixtures=["forward"])),
    ("its counts are not those of its directions", lambda d: d.update(mixtures={"backward": d["mixtures"]["forward"]})),
    ("its counts are not those of its directions", lambda d: d["mixtures"].update({"": d["mixtures"]["forward"]})),
    ("description is incomplete: KeyError 'order'", lambda d: d["mixtures"]["forward"].pop("order")),
    ("description is incomplete: TypeError", lambda d: d["mixtures"].update(forward=[5, 5, 5])),
    *(
        (words, lambda d, name=name, number=number: d["mixtures"]["forward"].update({name: number}))
        for words, numbers in {
            "its forward counts have sizes that are none": [0, -1, 2**31, 10**400, 5.0, True, "5", None, [5]],
            "another shape than its settings say": [1, 33, 2**31 - 1],
        }.items()
        for number in numbers
        for name in ("order", "contexts", "predictions")
    ),
]


@pytest.mark.parametrize(("words", "change"), DESCRIBED)
def test_counts_that_are_described_wrong_are_refused_in_words(words: str, change: Any, tmp_path: Path) -> None:
    draft = draft_of()
    change(draft.description)
    assert words in complaint(draft, tmp_path / "m")


def test_a_tree_of_ids_that_the_vocabulary_does_not_have_is_refused(tmp_path: Path) -> None:
    draft = draft_of()
    draft.lay(draft.arrays | {"forward_ids": draft.arrays["forward_ids"] + np.uint8(5)})
    assert "m is not a good model file: ids that there are not" in complaint(draft, tmp_path / "m")


def change_tree(draw: Random, draft: Draft) -> None:
    """Change numbers of an array of a tree or of weights, their order, their type, or how many there are."""
    name = draw.choice([name for name in draft.arrays if name.endswith((*NAMES, "mixture")) and "layers" not in name])
    array = np.array(draft.arrays[name])
    random = np.random.default_rng(draw.getrandbits(32))
    kind = draw.randrange(7)
    if kind == 0:
        array = np.frombuffer(random.bytes(array.nbytes), array.dtype).reshape(array.shape)
    elif kind == 1:
        array.flat[draw.randrange(array.size)] = random.integers(0, draw.choice([3, 128]))
    elif kind == 2 and array.dtype.kind in "iu":
        place = draw.randrange(array.size)
        array[place : place + 1] += np.array([draw.choice([-1, 1])]).astype(array.dtype)
    elif kind == 3:
        array = random.permutation(array)
    elif kind == 4:
        array = array.astype(draw.choice(["<i4", "<i2", "|u1", "|i1", "<f8", "<f4"]))
    elif kind == 5:
        resize(draw, draft, name, array)
        return
    else:
        array.flat[draw.randrange(array.size)] = draw.choice(
            [0, 1, *([np.nan, np.inf, 1e300, -0.5, 1.5, 1e-5] if array.dtype.kind == "f" else [127])]
        )
    draft.lay(draft.arrays | {name: array})


def resize(draw: Random, draft: Draft, name: str, array: np.ndarray) -> None:
    """Make an array longer or shorter; let the description, and the arrays that are as long as it, follow or not."""
    direction, part = name.split("_")
    number = draw.choice([-1, 1, 7])
    together = draw.choice([(part,), ("ids", "shares"), ("labels", "children", "predictions", "rests"), ("mixture",)])
    for each in (f"{direction}_{other}" for other in together):
        old = draft.arrays[each]
        draft.lay(draft.arrays | {each: old[:-1] if number < 0 else np.concatenate([old, old[:number]])})
    if draw.random() < 0.8:
        described = {"ids": "predictions", "shares": "predictions", "mixture": "order"}.get(together[0], "contexts")
        draft.description["mixtures"][direction][described] = len(draft.arrays[f"{direction}_{together[0]}"])


@pytest.mark.parametrize("count", [250, pytest.param(10_000, marks=pytest.mark.slow)])
def test_a_file_whose_tree_was_changed_is_refused_or_looked_up_inside_its_arrays(tmp_path: Path, count: int) -> None:
    files = [FILES[kind]() for kind in ("one way", "int8", "labelled records", "many")]
    drafts, refused, read = [(file.all_arrays, file.describe()) for file in files], set(), 0
    contexts = [np.random.default_rng(length).integers(-1, 12, length) for length in (0, 40)]
    for _, _, data in mutants([change_tree], change_tree, count, drafts):
        (tmp_path / "m").write_bytes(data)
        try:
            file = read_model(tmp_path / "m")
        except ModelFileError as error:
            refused.add(str(error).partition("model file: ")[2])
            continue
        read += 1
        for mixture in file.mixtures.values():
            check_lookups(mixture, contexts + contexts_of(mixture.tree, 10))
    assert read > count / 10
    assert len({message[:12] for message in refused}) > 8
    assert all(len(message.splitlines()) == 1 and len(message) < 300 for message in refused)
