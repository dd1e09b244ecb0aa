"""Random ways to change a file in pieces."""

import json
import math
import struct
from random import Random
from typing import Any

import numpy as np

from chargen.storage import tensor_file
from chargen.storage.quantize import SCALE
from tests.storage.drafts import Draft, written

TEXTS = ["", "x", "1", "@", "é", "\\", "'\"", "byte", "model", "utf-8"]
TEXTS += ["\0", "\ud800", "\U0001f600", "\n\x1b[31m\u202e"]
VALUES = [None, True, False, -1, 0, 1, 2, 255, 1.5, -0.0, 1e308, math.nan, math.inf, -math.inf, 10**9, 10**18, 2**31]
VALUES += [2**63, 2**64, -(2**63), 10**30, 10**400, [], {}, [[]], [None], {"": None}, [1, 2], ["a", "b"], {"a": 0}]
MARKS = ["@digits 30@", "@digits 4000@", "@digits 5000@", "@infinite 1@"]
DEPTHS = (3, 100, 500, 900, 100_000)


def hostile(draw: Random) -> Any:
    """A value that no field should hold."""
    kind = draw.randrange(8)
    if kind == 0:
        return f"@{draw.choice(['lists', 'tables'])} {draw.choice(DEPTHS)}@"
    if kind == 1:
        return draw.choice(MARKS)
    if kind == 2:
        return draw.choice(TEXTS) * draw.choice([1, 1, 300, 100_000])
    return draw.choice(VALUES)


def somewhere(draw: Random, table: Any) -> tuple[Any, Any]:
    """A random place in nested tables and lists: its container, and its key there."""
    while True:
        key = draw.choice(list(table)) if isinstance(table, dict) else draw.randrange(len(table))
        inside = table[key]
        if not isinstance(inside, (dict, list)) or not inside or draw.random() < 0.2:
            return table, key
        table = inside


def change_value(draw: Random, draft: Draft) -> None:
    holder, key = somewhere(draw, draft.description)
    holder[key] = hostile(draw)


def change_number(draw: Random, draft: Draft) -> None:
    for _ in range(100):
        holder, key = somewhere(draw, draft.description)
        if isinstance(number := holder[key], (int, float)):
            others = [number + 1, number - 1, -number, number * 10**9, number + 0.5, number * 1e300, str(number)]
            holder[key] = draw.choice([*others, bool(number), [number], float(number)])
            return


def swap_values(draw: Random, draft: Draft) -> None:
    (table, key), (other_table, name) = (somewhere(draw, draft.description) for _ in range(2))
    table[key], other_table[name] = json.loads(json.dumps([other_table[name], table[key]]))


def drop_key(draw: Random, draft: Draft) -> None:
    holder, key = somewhere(draw, draw.choice([draft.description, draft.entries]))
    del holder[key]


def add_key(draw: Random, draft: Draft) -> None:
    holder, _ = somewhere(draw, draw.choice([draft.description, draft.entries]))
    name = draw.choice(["", "surprise", "sha256", "__class__", "\ud800", "\n", "quantize", "self", "k" * 100_000])
    if isinstance(holder, dict):
        holder[name] = hostile(draw)
    else:
        holder.append(hostile(draw))


def go_deep(draw: Random, draft: Draft) -> None:
    holder, key = somewhere(draw, draw.choice([draft.description, draft.entries]))
    holder[key] = f"@{draw.choice(['lists', 'tables'])} {draw.choice([draw.randrange(1000), 100_000])}@"


def go_long(draw: Random, draft: Draft) -> None:
    holder, key = somewhere(draw, draw.choice([draft.description, draft.entries]))
    holder[key] = draw.choice(TEXTS) * draw.choice([1000, 100_000, 1_000_000])


def change_entry(draw: Random, draft: Draft) -> None:
    holder, key = somewhere(draw, draft.entries)
    holder[key] = hostile(draw)


def change_shape(draw: Random, draft: Draft) -> None:
    entry = draft.entries[draw.choice(list(draft.entries))]
    shape = entry["shape"]
    others = [shape[::-1], [*shape, 1], shape[1:], [-side for side in shape], [float(side) for side in shape]]
    others += [[side * 10**9 for side in shape], [0, *shape], [True, *shape], [math.prod(shape)], [2**62, 4]]
    entry["shape"] = draw.choice(others)


def change_offsets(draw: Random, draft: Draft) -> None:
    entry, other = (draft.entries[draw.choice(list(draft.entries))] for _ in range(2))
    begin, end = entry["data_offsets"]
    size = len(draft.body)
    others = [other["data_offsets"], [end, begin], [begin - size, end - size], [-8, end], [begin, end + 4], [end, end]]
    others += [[size, size + end - begin], [begin + 10**18, end + 10**18], [float(begin), float(end)], [begin + 1, end]]
    entry["data_offsets"] = draw.choice(others)


def change_type(draw: Random, draft: Draft) -> None:
    """Give an array a wrong type: in its entry only, or in entry and bytes."""
    name = draw.choice(list(draft.entries))
    if draw.random() < 0.5:
        draft.entries[name]["dtype"] = draw.choice(["F64", "F32", "BF16", "I8", "F16", "U8", "I64", "f4", "", "F32 "])
    else:
        dtype = draw.choice(["<f8", "<f4", "<u2", "|i1"])
        with np.errstate(all="ignore"):
            draft.lay({**draft.arrays, name: np.ones(draft.arrays[name].shape).astype(dtype)})


def name_twice(draw: Random, draft: Draft) -> None:
    name = draw.choice(list(draft.entries))
    key, (holder, within) = draw.choice(list(draft.description)), somewhere(draw, draft.description)
    again = f",{written(name)}:{written(draft.entries[name])}}}"
    if draw.random() < 0.3:
        draft.edit_outer = lambda text: text[:-1] + draw.choice([again, f',"__metadata__":{{}}{again}'])
    elif draw.random() < 0.5 or not isinstance(holder, dict):
        draft.edit_inner = lambda text: f"{text[:-1]},{written(key)}:{written(draft.description[key])}}}"
    else:
        pair = f"{written(within)}:"
        draft.edit_inner = lambda text: text.replace(pair, f"{pair}1,{pair}", 1)


def change_arrays(draw: Random, draft: Draft) -> None:
    """Remove, add or exchange arrays."""
    arrays, (name, other_name) = dict(draft.arrays), draw.sample(list(draft.arrays), 2)
    kind = draw.randrange(4)
    if kind == 0:
        del arrays[name]
    elif kind == 1:
        arrays[draw.choice([name + SCALE, "", "\n", "k" * 1000, "\ud800", "more"])] = arrays[other_name]
    elif kind == 2:
        arrays[name], arrays[other_name] = arrays[other_name], arrays[name]
    else:
        arrays[name] = arrays[name][: draw.randrange(len(arrays[name]))]
    draft.lay(arrays)


def add_empty_arrays(draw: Random, draft: Draft) -> None:
    end = len(draft.body)
    entry = {"dtype": "F32", "shape": [0], "data_offsets": draw.choice([[end, end], [0, 0]])}
    draft.entries |= {f"empty.{number}": entry for number in range(20_000)}


def change_size(draw: Random, draft: Draft) -> None:
    draft.size = draw.choice([0, 1, 7, 2**32, 2**63, 2**64 - 1, 10**9, tensor_file.MAX_HEADER, draw.randrange(6000)])


def change_end(draw: Random, draft: Draft) -> None:
    tail = draw.randbytes(draw.choice([1, 4, 8, 1000]))
    draft.body = draw.choice([draft.body + tail, draft.body[: -len(tail)], b"", tail + draft.body])


def change_weights(draw: Random, draft: Draft) -> None:
    body = bytearray(draft.body)
    for _ in range(draw.choice([1, 1, 100])):
        bits = draw.choice([0x7FC00000, 0x7F800000, 0xFF800000, 0x7F7FFFFF, 1, draw.getrandbits(32)])
        body[(at := draw.randrange(0, len(body) - 3, 4)) : at + 4] = struct.pack("<I", bits)
    draft.body = bytes(body)


def splice(draw: Random, draft: Draft) -> None:
    """Remove, insert or move parts of the JSON."""

    def spliced(text: str) -> str:
        for _ in range(draw.randint(1, 4)):
            at, other = draw.randrange(len(text)), draw.randrange(len(text))
            signs = "".join(draw.choices('{}[]",:0123456789.eE-+\\u null true NaN\0é\ud800', k=draw.randrange(6)))
            new = draw.choice(["", signs, text[other : other + draw.randrange(40)]])
            text = text[:at] + new + text[at + draw.choice([0, 1, 1, 2, 8, 40]) :]
        return text

    if draw.random() < 0.7:
        draft.edit_inner = spliced
    else:
        draft.edit_outer = lambda text: text[:200] + spliced(text[200:])  # the checksum stays whole


def change_bytes(draw: Random, draft: Draft) -> None:
    """Replace the JSON by bytes that are no JSON in UTF-8."""

    def changed(head: bytes) -> bytes:
        at = draw.randrange(200, len(head))
        others = [head[:at] + draw.randbytes(3) + head[at:], b"\xef\xbb\xbf" + head, head.decode().encode("utf-16")]
        return draw.choice([*others, head[:at] + b"\xed\xa0\x80" + head[at:], head + b"\0" * 8, head[:-1], b""])

    draft.edit_head = changed


def change_config(draw: Random, draft: Draft) -> None:
    config = draft.description["config"]
    sizes = [0, -1, 1, 4, 6, 64, 65, 65536, 10**9, 2**63, 5.0, True, None, "5", [5]]
    for name in draw.sample(["hidden_size", "embedding_size", "num_layers"], draw.randint(1, 3)):
        config[name] = draw.choice(sizes)
    config |= draw.choice([{}, {"cell": "gru"}, {"cell": "lstm"}, {"bidirectional": True}, {"tie_weights": True}])


def change_counts(draw: Random, draft: Draft) -> None:
    size = len(draft.description["counts"])
    number = draw.choice([0, -1, 2**62, 2**63, 10**30, 1.0, 1e308, True, None, "1", [1], math.nan, "@infinite 1@"])
    others = [[number] * size, [1] * (size - 1) + [number], [1] * (size + 1), [1] * (size - 1), [], None, "1" * size]
    draft.description["counts"] = draw.choice([*others, {str(place): 1 for place in range(size)}])


def change_training(draw: Random, draft: Draft) -> None:
    training = draft.description["training"]
    for name in draw.sample(list(training), 2):
        training[name] = hostile(draw)
    draft.description["training"] = draw.choice([training, training, training, [training], hostile(draw)])
    draft.description["reading"] |= {draw.choice(["encoding", "errors", "newline"]): draw.choice([hostile(draw), "lf"])}


ENCODINGS = ["rot13", "zlib", "idna", "undefined", "mbcs", "aliases", "utf-16", "e" * 100_000, "\ud800", "a\0b", "../x"]


def change_reading(draw: Random, draft: Draft) -> None:
    draft.description["reading"]["encoding"] = draw.choice(ENCODINGS)


def change_scales(draw: Random, draft: Draft) -> None:
    """Change the scales of int8, or claim int8 for other weights."""
    draft.description["quantize"] = draw.choice(["int8", "int8", "bf16", "int4", "", None, 8, ["int8"], "q" * 1000])
    arrays = dict(draft.arrays)
    for name in [name for name in arrays if name.endswith(SCALE)] or [next(iter(arrays)) + SCALE]:
        number = draw.choice([math.nan, math.inf, 0.0, -1.0, 3e38, 1e-45, 1.0])
        size = len(arrays[name.removesuffix(SCALE)]) + draw.choice([0, 0, 0, 1])
        arrays[name] = np.full(size, number, draw.choice(["<f4", "<f4", "<f4", "<f8", "<u2"]) if number == 1 else "<f4")
    draft.lay(arrays)


def change_vocabulary(draw: Random, draft: Draft) -> None:
    stored = draft.description["vocabulary"]
    model = stored["tokenizer"]["model"]
    names = sorted(model["vocab"], key=model["vocab"].__getitem__)
    many = [chr(0x4E00 + number) for number in range(20_000)]
    twice = [draw.choice(names) for _ in names]
    vocabularies: list[Any] = [draw.sample(names, len(names)), twice, [*names[:-1], "\udfff"], [], many, ["<unk>"]]
    vocabularies += [[*names[:-1], "ab"], [""], [str(number) for number in range(len(names))], names[:-1]]
    vocabularies = [{name: number for number, name in enumerate(vocabulary)} for vocabulary in vocabularies]
    numbers = [0.5, -1, 2**63, True, None, "0", [0], "@lists 900@"]
    vocabularies += [dict.fromkeys(names, number) for number in numbers] + [names, None, "ab", 5, [["a", 0]]]
    vocabularies += [{name: float(number) for number, name in enumerate(names)}]
    foldings: list[Any] = [names[0], "aab", "ba", "\udfff", "".join(many), "a" * 100_000, names, 5, None, "xyz", "\0"]
    units = ["byte", "character", "word", "", None, 5, ["byte"], "u" * 100_000, "\n\x1b", "@lists 400@"]
    kind = draw.randrange(5)
    if kind == 0:
        stored["folded"] = draw.choice(foldings)
    elif kind == 1:
        stored["unit"] = draw.choice(units)
    elif kind == 2:
        model |= draw.choice([{"merges": [["a", "b"]]}, {"type": "WordLevel"}, {"merges": None}, {"type": ["BPE"]}])
    else:
        model["vocab"] = draw.choice(vocabularies)
        if draw.random() < 0.5:
            draft.description["counts"] = [1] * (len(model["vocab"]) if isinstance(model["vocab"], (dict, list)) else 1)


STREAM = {
    "draws": [-1, 2**63 - 1, 2**63, 1.0, True, "1"],
    "partial": ["f0", "f09f", "f09f98", "80", "8080", "ff", "zz", "f0" + "80" * 500_000, b"".hex(), 5, "\ud800"],
    "log_prob": [10**400, "nan", "1e999", "y" * 100_000, math.nan, "@infinite 1@", None, -1e308],
    "tail": ["\ufffd", "\ud800", "z", "a" * 100_000, 5, ["a"]],
    "no_repeat": [0, 2, 3, 2**63, "3", None],
    "recent": ["\ufffd\ufffd", "a", "z", "a" * 100_000, "\udfff", 5],
    "followers": [{"ab": "\ufffd"}, {"\ud800": "a"}, {"": "abc"}, {"ab": 5}, [], {"ab": "z"}, {"a" * 10_000: "a"}],
}


def change_stream(draw: Random, draft: Draft) -> None:
    streams = draft.description["streams"]
    for name in draw.sample(list(STREAM), 2):
        draw.choice(streams)[name] = draw.choice(STREAM[name])
    key = draw.choice(["seed", "num", "direction", "weights", "config"])
    draft.description[key] = draw.choice([draft.description[key]] * 8 + ["a\nb", "x" * 100_000, hostile(draw)])
    draft.description["streams"] = draw.choice([streams] * 8 + [streams * 2, [], streams[0], "ab", [[]]])


def change_state(draw: Random, draft: Draft) -> None:
    """Replace numbers by others of another type, or too large for the type they become."""
    name = draw.choice(list(draft.arrays))
    number = draw.choice([1e300, -1e300, 3e38, 1, 100])
    with np.errstate(all="ignore"):
        dtype = draw.choice(["<f8", "<f8", "<f4", "<u2", "|i1"]) if abs(number) == 1 else "<f8"
        draft.lay({**draft.arrays, name: np.full(draft.arrays[name].shape, number).astype(dtype)})


HEAVY = [add_empty_arrays]
REFUSED = [change_shape, change_offsets, name_twice, change_size, change_end, *HEAVY]
"""Nothing of it can be good by luck, unless it changes nothing."""
ANY = [change_value, change_number, swap_values, drop_key, add_key, go_deep, go_long, change_entry, change_shape]
ANY += [change_offsets, change_type, name_twice, change_arrays, change_size, change_end, change_weights, splice]
ANY += [change_bytes]
OF_MODELS = [change_config, change_counts, change_training, change_reading, change_scales, change_vocabulary]
OF_STREAMS = [change_stream, change_state]


def mutants(kinds: list[Any], kind: Any, count: int, drafts: list[tuple[dict[str, Any], dict[str, Any]]]):
    """Yield mutants of drafts, some of them changed twice: number, index of the draft, and bytes."""
    for number in range(max(1, count // 10) if kind in HEAVY else count):
        draw = Random(f"{kind.__name__} {number}")
        index = draw.randrange(len(drafts))
        draft = Draft(*drafts[index])
        try:
            if draw.random() < 0.25 and kind not in REFUSED:
                draw.choice(kinds)(draw, draft)
            kind(draw, draft)
            data = draft.signed()
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError):  # the first broke what this needs
            draft = Draft(*drafts[index])
            kind(draw, draft)
            data = draft.signed()
        if kind not in REFUSED or data != Draft(*drafts[index]).signed():
            yield number, index, data
