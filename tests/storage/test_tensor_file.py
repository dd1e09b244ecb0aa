"""A file of arrays: what goes in comes out, equal content is equal bytes, nothing damaged or hostile gets in."""

import hashlib
import json
import os
import struct
import tracemalloc

import numpy as np
import pytest
import safetensors
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from chargen.errors import ModelFileError, SettingError, WriteError, amount
from chargen.storage import tensor_file
from tests.yardstick import is_read_soon

KIND = "test"
FLOATS = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
EIGHT = b"\0\0\x80\x3f\0\0\0\x40"
TYPES = {"<f8": "F64", "<f4": "F32", "<u2": "BF16", "|i1": "I8", "|u1": "U8", "<i2": "I16", "<i4": "I32"}

arrays_of = st.dictionaries(
    st.text(max_size=8).filter(lambda name: name != "__metadata__"),
    hnp.arrays(st.sampled_from(list(TYPES)), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)),
    max_size=4,
)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
descriptions = st.dictionaries(st.text(max_size=6).filter(lambda key: key not in ("kind", "sha256")), plain, max_size=4)


def shapes_of(arrays):
    return {name: array.shape for name, array in arrays.items()}


def signed(description, header=None, data=EIGHT):
    """A file whose checksum is right, whatever else is wrong. Both parts may be given as JSON text."""
    entries = {"x": FLOATS} if header is None else header
    inner = description if isinstance(description, str) else json.dumps({"kind": KIND, **description})
    inner = inner[:-1] + ("," if len(inner) > 2 else "") + f'"sha256":"{tensor_file.ZEROS}"}}'
    outer = entries if isinstance(entries, str) else json.dumps(entries)
    meta = '"__metadata__":' + json.dumps({tensor_file.KEY: inner})
    head = ("{" + meta + ("," if len(outer) > 2 else "") + outer[1:]).encode()
    unsigned = struct.pack("<Q", len(head)) + head + data
    digest = hashlib.sha256(unsigned).hexdigest()
    return unsigned.replace(tensor_file._digest_field(tensor_file.ZEROS), tensor_file._digest_field(digest), 1)


def unpack(data, shapes=None):
    return tensor_file.unpack(data, KIND, lambda description: {"x": (2,)} if shapes is None else shapes)


@given(arrays_of, descriptions)
def test_what_is_packed_comes_back_whole(arrays, description):
    unpacked, described = unpack(tensor_file.pack(arrays, {**description, "kind": KIND}), shapes_of(arrays))
    assert unpacked.keys() == arrays.keys()
    for name, array in arrays.items():
        assert unpacked[name].dtype == array.dtype
        assert unpacked[name].shape == array.shape
        assert unpacked[name].tobytes() == array.tobytes()
    digest = described.pop("sha256")
    assert len(digest) == 64
    assert described == {**description, "kind": KIND}


@given(arrays_of, descriptions)
def test_equal_content_gives_equal_bytes_in_any_order(arrays, description):
    turned = {name: arrays[name].copy() for name in reversed(arrays)}
    described = {key: description[key] for key in reversed(description)}
    assert tensor_file.pack(arrays, description) == tensor_file.pack(turned, described)


@given(arrays_of, descriptions)
def test_the_safetensors_library_reads_arrays_that_are_aligned(arrays, description):
    data = tensor_file.pack(arrays, description)
    entries = dict(safetensors.deserialize(data))
    assert entries.keys() == arrays.keys()
    for name, array in arrays.items():
        assert entries[name]["dtype"] == TYPES[array.dtype.str]
        assert tuple(entries[name]["shape"]) == array.shape
        assert bytes(entries[name]["data"]) == array.tobytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    assert size % 8 == 0
    assert all(header[name]["data_offsets"][0] % array.itemsize == 0 for name, array in arrays.items())


def test_the_description_is_readable_with_safetensors_alone(tmp_path):
    tensor_file.save(tmp_path / "f", {"x": np.ones(2, "f4")}, {"kind": KIND, "n": 1})
    with safetensors.safe_open(tmp_path / "f", "np") as file:
        described = json.loads(file.metadata()["chargen"])
    content = (tmp_path / "f").read_bytes()
    zeroed = content.replace(described["sha256"].encode(), b"0" * 64)
    assert described == {"kind": KIND, "n": 1, "sha256": hashlib.sha256(zeroed).hexdigest()}


@given(descriptions)
def test_canonical_json_is_one_sorted_ascii_line(description):
    text = tensor_file.canonical_json(description)
    assert json.loads(text) == description
    assert text.isascii()
    assert "\n" not in text
    assert text == tensor_file.canonical_json(dict(reversed(description.items())))


def test_canonical_json_has_no_spaces_and_refuses_nan():
    assert tensor_file.canonical_json({"b": [1, 2], "a": None}) == '{"a":null,"b":[1,2]}'
    with pytest.raises(ValueError, match="JSON"):
        tensor_file.canonical_json({"loss": float("nan")})


def test_strided_arrays_keep_their_values():
    array = np.arange(12, dtype="<f4").reshape(3, 4).T[::2]
    unpacked, _ = unpack(tensor_file.pack({"x": array}, {"kind": KIND}), {"x": array.shape})
    assert (unpacked["x"] == array).all()


@pytest.mark.parametrize("dtype", ["f2", "i8", "u4", "u8", "bool", "c8", ">f4", ">f8", ">u2", ">i2", ">i4", "U1", "O"])
def test_a_type_that_could_not_be_read_back_is_refused_when_written(dtype):
    words = "a file holds float64, float32, bf16 bits in uint16, and whole numbers in int8, uint8, int16 or int32$"
    with pytest.raises(ValueError, match=rf"^array x is .*: {words}"):
        tensor_file.pack({"x": np.zeros(2, dtype)}, {"kind": KIND})


def test_a_description_may_hold_sixty_four_zeros_of_its_own():
    description = {"kind": KIND, "base": {"sha256": tensor_file.ZEROS}}
    _, unpacked = unpack(tensor_file.pack({}, description), {})
    assert unpacked["base"] == description["base"]


def test_every_truncation_and_every_extension_is_detected():
    data = signed({})
    unpack(data)
    for size in range(len(data)):
        with pytest.raises(ModelFileError):
            unpack(data[:size])
    for tail in (b"\0", EIGHT, data):
        with pytest.raises(ModelFileError):
            unpack(data + tail)


def test_every_flipped_bit_is_detected():
    data = tensor_file.pack({"x": np.array([1, -2], "f4")}, {"kind": KIND, "training": {"loss": 1.25}})
    unpack(data)
    for place in range(len(data)):
        for bit in range(8):
            broken = bytearray(data)
            broken[place] ^= 1 << bit
            with pytest.raises(ModelFileError):
                unpack(bytes(broken))


def entry(**changes):
    return {"x": {**FLOATS, **changes}}


HOSTILE = {
    "duplicate names": ({}, f'{{"x":{json.dumps(FLOATS)},"x":{json.dumps(FLOATS)}}}'),
    "duplicate keys of an array": ({}, '{"x":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}'),
    "duplicate keys of the description": ('{"kind":"test","kind":"test"}', None),
    "second metadata": ({}, f'{{"x":{json.dumps(FLOATS)},"__metadata__":{{}}}}'),
    "side of 10^9": ({}, entry(shape=[10**9], data_offsets=[0, 4 * 10**9])),
    "sides of 10^9": ({}, entry(shape=[10**9] * 9)),
    "side of 10^30": ({}, entry(shape=[10**30])),
    "negative side": ({}, entry(shape=[-2])),
    "two negative sides": ({}, entry(shape=[-1, -2])),
    "boolean side": ({}, entry(shape=[True, 2]), EIGHT, {"x": (1, 2)}),
    "float side": ({}, entry(shape=[2.0])),
    "text side": ({}, entry(shape=["2"])),
    "shape not a list": ({}, entry(shape=2)),
    "no shape": ({}, {"x": {"dtype": "F32", "data_offsets": [0, 8]}}),
    "negative offset": ({}, entry(data_offsets=[-8, 0])),
    "offsets before the data": ({}, entry(data_offsets=[-16, -8])),
    "gap before": ({}, entry(data_offsets=[4, 12]), EIGHT + b"\0\0\0\0"),
    "offset of 10^30": ({}, entry(data_offsets=[10**30, 10**30 + 8])),
    "backward offsets": ({}, entry(data_offsets=[8, 0])),
    "boolean offsets": ({}, entry(data_offsets=[False, 8])),
    "three offsets": ({}, entry(data_offsets=[0, 8, 8])),
    "no offsets": ({}, {"x": {"dtype": "F32", "shape": [2]}}),
    "overlapping arrays": ({}, {"x": FLOATS, "y": FLOATS}, EIGHT, {"x": (2,), "y": (2,)}),
    "gap between": ({}, entry() | {"y": {**FLOATS, "data_offsets": [12, 20]}}, EIGHT * 3, {"x": (2,), "y": (2,)}),
    "wrong dtype": ({}, entry(dtype="F64")),
    "unknown dtype": ({}, entry(dtype="F8_E4M3")),
    "dtype a number": ({}, entry(dtype=4)),
    "no dtype": ({}, {"x": {"shape": [2], "data_offsets": [0, 8]}}),
    "extra array": ({}, entry() | {"y": {"dtype": "F32", "shape": [0], "data_offsets": [8, 8]}}),
    "missing array": ({}, {}, b""),
    "many empty arrays": ({}, {str(n): {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for n in range(10_000)}),
    "array not a table": ({}, {"x": [1]}),
    "data too short": ({}, None, EIGHT[:4]),
    "data too long": ({}, None, EIGHT * 2),
    "another kind": ({"kind": "run"}, None),
    "kind a list": ({"kind": [KIND]}, None),
    "no kind": ("{}", None),
    "deep header": ({}, '{"x":' + '{"x":' * 100_000 + "1" + "}" * 100_001),
    "deep description": ('{"kind":"test","a":' + "[" * 100_000 + "]" * 100_000 + "}", None),
    "number of 5,000 digits": ('{"kind":"test","a":' + "9" * 5000 + "}", None),
    "dtype a list": ({}, entry(dtype=["F32"])),
    "dtype a table": ({}, entry(dtype={"F32": 1})),
    "NaN": ('{"kind":"test","loss":NaN}', None),
    "Infinity": ('{"kind":"test","loss":-Infinity}', None),
    "1e999": ('{"kind":"test","loss":1e999}', None),
    "second array cut": (
        {},
        entry() | {"y": {**FLOATS, "data_offsets": [8, 16]}},
        EIGHT + EIGHT[:4],
        {"x": (2,), "y": (2,)},
    ),
    "endless name": ({}, entry() | {"y" * 100_000: FLOATS}),
    "endless kind": ({"kind": "k" * 100_000}, None),
    "endless shape": ({}, entry(shape=[10**18] * 30_000)),
}


def complaint(data, shapes=None):
    """The one short line in which hostile bytes are refused, soon and without a large allocation."""

    def refuse():
        with pytest.raises(ModelFileError) as caught:
            unpack(data, shapes)
        return caught

    assert is_read_soon(refuse)
    tracemalloc.start()
    try:
        caught = refuse()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert len(message) < 1000
    assert peak < 30 * len(data) + 2_000_000
    return message


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_with_a_good_checksum_is_refused(name):
    description, header, *rest = HOSTILE[name]
    shapes = rest[1] if len(rest) > 1 else None
    complaint(signed(description, header, rest[0] if rest else EIGHT), shapes)


WORDS = {
    "duplicate names": "its header is not JSON (a name occurs twice)",
    "duplicate keys of the description": "its description is not JSON (a name occurs twice)",
    "NaN": "its description is not JSON (NaN is not a number)",
    "Infinity": "its description is not JSON (-Infinity is not a number)",
    "1e999": "its description is not JSON (1e999 is too large)",
    "array not a table": "its header is not a table of arrays",
    "no offsets": "an array has no place in the file",
    "unknown dtype": "an array has a type that chargen does not write",
    "side of 10^9": "array x has another shape than its settings say, (2,)",
    "gap before": "array x does not lie where 8 bytes of it must",
    "second array cut": "array y does not lie where 8 bytes of it must",
    "data too long": "8 bytes behind the last array",
    "extra array": "its arrays do not fit its settings (y, 1 in all)",
    "another kind": "it is a file of another kind, 'run'",
    "no kind": "it is a file of another kind, None",
}


@pytest.mark.parametrize("name", WORDS)
def test_a_hostile_file_is_told_what_is_wrong_with_it(name):
    description, header, *rest = HOSTILE[name]
    shapes = rest[1] if len(rest) > 1 else None
    assert complaint(signed(description, header, rest[0] if rest else EIGHT), shapes) == WORDS[name]


def headed(head):
    return struct.pack("<Q", len(head)) + head


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"1234567", "it is too short: 7 bytes"),
        (bytes(8), "its header is not JSON (Expecting value: line 1 column 1 (char 0))"),
        (struct.pack("<Q", 3) + b"{}", "a header of 3 bytes does not fit its 10 bytes"),
        (struct.pack("<Q", 10**6) + b"{}", "a header of 1,000,000 bytes does not fit its 10 bytes"),
        (headed(b"[]"), "its header is not a table of arrays"),
        (headed(b"{}"), "chargen did not write it"),
        (headed(b'{"__metadata__":{"chargen":"[]"}}'), "its description is not a table"),
        (headed(b'{"__metadata__":{"chargen":"{}"}}'), "it carries no checksum"),
        (signed({}).replace(EIGHT, EIGHT[::-1]), "it is damaged: its checksum does not fit; take a fresh copy"),
    ],
)
def test_what_is_no_file_of_this_kind_is_told_why(data, words):
    assert complaint(data) == words


def test_arrays_follow_each_other_and_nothing_follows_the_last():
    arrays = {"a": np.ones(3, "f8"), "b": np.ones(3, "f4"), "c": np.ones(5, "i1")}
    data = tensor_file.pack(arrays, {"kind": KIND})
    unpack(data, shapes_of(arrays))
    size = sum(array.nbytes for array in arrays.values())
    header = json.loads(data[8:-size])
    text = json.dumps({name: header[name] for name in header if name != "__metadata__"})
    for surplus in (1, 7, 100):
        longer = signed({}, text, data[-size:] + bytes(surplus))
        assert complaint(longer, shapes_of(arrays)) == f"{amount(surplus, 'byte')} behind the last array"


def test_a_file_says_of_what_kind_it_is(tmp_path):
    tensor_file.save(tmp_path / "f", {"x": np.ones(2, "f4")}, {"kind": KIND})
    assert tensor_file.is_kind(tmp_path / "f", KIND) is True
    assert tensor_file.is_kind(str(tmp_path / "f"), "run") is False
    tensor_file.save(tmp_path / "none", {}, {})
    (tmp_path / "text").write_text("dear diary")
    (tmp_path / "huge").touch()
    os.truncate(tmp_path / "huge", 1 << 40)
    for name in ("none", "text", "absent", ".", "huge"):
        assert tensor_file.is_kind(tmp_path / name, KIND) is False


def test_a_link_is_followed_to_a_file_of_its_kind_only(tmp_path):
    tensor_file.save(tmp_path / "model", {}, {"kind": KIND})
    (tmp_path / "text").write_text("dear diary")
    for name in ("model", "text", "absent"):
        (tmp_path / f"to {name}").symlink_to(tmp_path / name)
    tensor_file.save(tmp_path / "to model", {}, {"kind": KIND, "n": 1})
    assert (tmp_path / "to model").is_symlink()
    assert tensor_file.load(tmp_path / "model", KIND, lambda _: {})[1]["n"] == 1
    for name, kind in (("to text", KIND), ("to absent", KIND), ("to model", "run")):
        words = f"^cannot write {tmp_path / name}: it is a link to something that is no {kind} file$"
        with pytest.raises(WriteError, match=words):
            tensor_file.save(tmp_path / name, {}, {"kind": kind})
    assert (tmp_path / "text").read_text() == "dear diary"
    assert not (tmp_path / "absent").exists()


def test_an_array_may_not_be_named_like_the_metadata():
    with pytest.raises(ValueError, match="no array can be named __metadata__"):
        tensor_file.pack({"__metadata__": np.ones(2, "f4")}, {"kind": KIND})


def test_no_header_is_written_that_could_not_be_read_again(tmp_path):
    description = {"kind": KIND, "text": "a" * 1000}
    data = tensor_file.pack({}, description)
    (size,) = struct.unpack("<Q", data[:8])
    assert tensor_file.pack({}, description, size) == data
    assert tensor_file.unpack(data, KIND, lambda _: {}, size)[1]["text"] == description["text"]
    words = f"its description takes {size:,} bytes, more than {size - 1:,}"
    with pytest.raises(SettingError) as caught:
        tensor_file.pack({}, description, size - 1)
    assert str(caught.value) == words
    with pytest.raises(ModelFileError, match=f"a header of {size:,} bytes does not fit"):
        tensor_file.unpack(data, KIND, lambda _: {}, size - 1)
    with pytest.raises(SettingError) as caught:
        tensor_file.save(tmp_path / "f", {}, description, smaller="say less", max_header=size - 1)
    assert str(caught.value) == f"cannot write {tmp_path / 'f'}: {words}; say less"
    assert not (tmp_path / "f").exists()
    tensor_file.save(tmp_path / "f", {}, description)
    assert tensor_file.is_kind(tmp_path / "f", KIND, size)
    assert not tensor_file.is_kind(tmp_path / "f", KIND, size - 1)


@pytest.mark.parametrize("size", [2**63, 2**64 - 1, 10**9, tensor_file.MAX_HEADER + 1])
def test_a_header_that_claims_to_be_huge_is_refused(size):
    assert f"{size:,}" in complaint(struct.pack("<Q", size) + signed({})[8:])


@pytest.mark.parametrize(
    ("size", "words"), [(1_000_000, "its header is not JSON"), (1_000_001, "a header of 1,000,001 bytes does not fit")]
)
def test_a_header_of_a_million_bytes_is_the_largest_that_is_looked_at(size, words):
    assert complaint(headed(b" " * size)).startswith(words)


@pytest.mark.parametrize("inner", ["[]", '"text"', "1", "null", "{", "", "'", None, 5, {"kind": KIND}])
def test_a_description_that_is_not_a_json_table_is_refused(inner):
    head = json.dumps({"__metadata__": {tensor_file.KEY: inner}, "x": FLOATS}).encode()
    complaint(struct.pack("<Q", len(head)) + head + EIGHT)


@pytest.mark.parametrize("head", [b"[]", b"1", b"null", b"", b"{}", b'{"__metadata__":{}}', b"\xff\xfe", b"nonsense"])
def test_a_header_of_another_program_is_refused(head):
    complaint(struct.pack("<Q", len(head)) + head)


@pytest.mark.parametrize("digest", [5, None, True, [], "", "0" * 64, "F" * 64, "\ud800"])
def test_a_digest_that_is_no_checksum_is_refused(digest):
    inner = json.dumps({"kind": KIND, "sha256": digest}, separators=(",", ":"))
    head = json.dumps({"__metadata__": {tensor_file.KEY: inner}, "x": FLOATS}).encode()
    assert "checksum" in complaint(struct.pack("<Q", len(head)) + head + EIGHT)


def test_a_checksum_that_stands_in_two_places_is_none():
    zeros = tensor_file._digest_field(tensor_file.ZEROS)
    data = signed(f'{{"kind":"{KIND}","base":{{"sha256":"{tensor_file.ZEROS}"}}}}')
    digest = data.split(b'sha256\\":\\"')[1][:64].decode()
    assert data.count(zeros) == 1
    assert complaint(data.replace(zeros, tensor_file._digest_field(digest))) == "it carries no checksum"


@pytest.mark.parametrize("error", [KeyError("a"), TypeError("a"), ValueError("a"), OverflowError("a")])
def test_a_description_that_cannot_be_understood_is_a_model_file_error(error):
    def fails(_):
        raise error

    with pytest.raises(ModelFileError, match="incomplete"):
        tensor_file.unpack(signed({}), KIND, fails)


def test_a_setting_out_of_range_in_a_file_is_a_model_file_error():
    def fails(_):
        raise SettingError("hidden_size is 0: it must be 1 to 65,536", "hidden_size")

    with pytest.raises(ModelFileError, match="hidden_size is 0"):
        tensor_file.unpack(signed({}), KIND, fails)


@pytest.mark.parametrize(("length", "shown"), [(200, "a" * 200), (201, "a" * 200 + "…")])
def test_a_setting_in_a_file_does_not_decide_how_long_the_message_is(length, shown):
    def fails(_):
        raise SettingError("a" * length)

    with pytest.raises(ModelFileError) as caught:
        tensor_file.unpack(signed({}), KIND, fails)
    assert str(caught.value) == shown


def test_loaded_arrays_cannot_be_written_to():
    arrays, _ = unpack(signed({}))
    assert arrays["x"].tolist() == [1, 2]
    assert not arrays["x"].flags.writeable


def test_messages_name_the_file(tmp_path):
    with pytest.raises(ModelFileError, match=r"^cannot read .*absent: No such file or directory$"):
        tensor_file.load(tmp_path / "absent", KIND, lambda _: {})
    (tmp_path / "short").write_bytes(b"1234")
    with pytest.raises(ModelFileError, match=r"short is not a good test file: it is too short: 4 bytes"):
        tensor_file.load(tmp_path / "short", KIND, lambda _: {})
