"""Files of several networks: what is read is what was saved, and nothing else is taken for one."""

import numpy as np
import pytest

from chargen.errors import ModelFileError
from chargen.storage import tensor_file
from chargen.storage.model_file import MAX_NETWORKS, read_model, save_model
from chargen.storage.quantize import quantize
from tests.small_models import as_bf16, small_model, with_counts


def several(number=3, **shape):
    files = [small_model(seed=seed, **shape) for seed in range(number)]
    return files[0].with_networks(file.arrays for file in files)


@pytest.mark.parametrize("stored", ["fp32", "int8", "bf16"])
@pytest.mark.parametrize("both", [False, True])
def test_all_networks_come_back(tmp_path, stored, both):
    file = with_counts(several(bidirectional=both), "bad cab face\n")
    if stored != "fp32":
        file = file.with_networks(quantize(arrays, stored) for arrays in file.networks)
    save_model(tmp_path / "m.safetensors", file)
    read = read_model(tmp_path / "m.safetensors")
    assert read.describe() == file.describe()
    assert read.describe()["networks"] == 3
    assert read.format == 3
    assert len(read.networks) == 3
    for own, other in zip(read.networks, file.networks, strict=True):
        assert own.keys() == other.keys()
        for name, array in own.items():
            np.testing.assert_array_equal(array, other[name])
    assert "3 networks" in repr(read)
    assert read.network_alone == "the first of 3 networks alone, without the counts beside it"
    assert read.parameters == 3 * small_model(bidirectional=both).parameters


def test_a_file_of_one_network_is_as_ever(tmp_path):
    file = small_model()
    assert "networks" not in file.describe()
    assert file.format == 1
    assert list(file.all_arrays) == list(file.arrays)


def test_networks_of_another_shape_or_type_are_not_saved(tmp_path):
    file, other = small_model(), small_model(hidden_size=13)
    for wrong in (other.arrays, as_bf16(file).arrays | {"more": file.arrays["output.bias"]}, {}):
        with pytest.raises(ValueError, match="not those of the model's config"):
            save_model(tmp_path / "m.safetensors", file.with_networks([file.arrays, wrong]))
    broken = {name: array.copy() for name, array in file.arrays.items()}
    broken["output.bias"][0] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        save_model(tmp_path / "m.safetensors", file.with_networks([file.arrays, broken]))
    with pytest.raises(ValueError, match=f"holds up to {MAX_NETWORKS}"):
        save_model(tmp_path / "m.safetensors", file.with_networks([file.arrays] * (MAX_NETWORKS + 1)))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [0, 1, 2, 4, -1, 65, 2**70, True, "3", None, 3.0, [3]])
def test_a_number_of_networks_that_is_not_theirs_is_refused(tmp_path, number):
    file = several()
    tensor_file.save(tmp_path / "m.safetensors", file.all_arrays, file.describe() | {"networks": number})
    with pytest.raises(ModelFileError):
        read_model(tmp_path / "m.safetensors")


def test_a_network_that_is_not_finite_is_refused(tmp_path):
    file = several()
    arrays = {name: array.copy() for name, array in file.all_arrays.items()}
    arrays["output.bias:3"][0] = np.inf
    tensor_file.save(tmp_path / "m.safetensors", arrays, file.describe())
    with pytest.raises(ModelFileError, match="not finite"):
        read_model(tmp_path / "m.safetensors")
