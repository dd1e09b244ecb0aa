"""Forms of a model that are none: what does not belong together is refused by name."""

import dataclasses

import pytest

from chargen.data.vocabulary import Vocabulary
from chargen.errors import ArgumentError, SettingError
from chargen.storage.model_file import as_model_file, build_model
from tests.small_models import small_model


def test_what_does_not_belong_to_a_model_is_refused():
    file = small_model()
    for surplus in ({"vocabulary": file.vocabulary}, {"counts": file.counts}):
        with pytest.raises(SettingError, match=r"^a model file has its own vocabulary and counts: give none$"):
            as_model_file(file, **surplus)
    with pytest.raises(ArgumentError, match=r"^counts of shape \(9,\)"):
        as_model_file(dataclasses.replace(file, counts=file.counts[1:]))
    model = build_model(file)
    for vocabulary in (None, "abcdefgh \n", Vocabulary("ab")):
        with pytest.raises(SettingError, match=r"^give the vocabulary of this CharModel: it has 10 ids$") as caught:
            as_model_file(model, vocabulary)
        assert caught.value.setting == "vocabulary"
    with pytest.raises(SettingError, match=r"^counts have shape \(10, 1\): the vocabulary has 10 ids$"):
        as_model_file(model, file.vocabulary, file.counts[:, None])
    for wrong in (None, 5, model.output):
        with pytest.raises(SettingError, match=r"^model is .*: it must be the path of a model file") as caught:
            as_model_file(wrong)
        assert caught.value.setting == "model"
    with pytest.raises(ArgumentError, match=r"^weights of a model of 10 ids: the vocabulary has 2$"):
        build_model(dataclasses.replace(file, vocabulary=Vocabulary("ab")))
