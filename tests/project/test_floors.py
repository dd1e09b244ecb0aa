"""The house: imports point down, no circles, guarded packages stay where they belong."""

import ast
import graphlib
from functools import cache
from pathlib import Path

import pytest

import chargen

ROOT = Path(chargen.__file__).parent
ROOMS = {
    "errors": 0,
    "settings": 0,
    "arguments": 0,
    "rng": 0,
    "durable": 0,
    "locks": 0,
    "launch": 0,
    "cache_folder": 0,
    "suggestions": 0,
    "data": 1,
    "kernels": 1,
    "pages": 1,
    "model": 2,
    "counting": 2,
    "storage": 3,
    "decoding": 4,
    "sampling": 5,
    "infill": 6,
    "evaluation": 6,
    "training": 7,
    "exporting": 8,
    "insight": 8,
    "comparison": 8,
    "api": 9,
    "cli": 10,
    "__main__": 11,
}
GUARDED = {
    "tokenizers": {"data/vocabulary.py"},
    "safetensors": set(),
    "click": {"cli/"},
    "tqdm": {"api/", "cli/"},
    "prompt_toolkit": {"cli/"},
    "filelock": {"durable.py"},
    "platformdirs": {"cache_folder.py"},
    "zstandard": {"data/unpack.py"},
    "pydivsufsort": {"counting/copy_finder.py"},
    "urllib": {"data/download.py"},
    "http": {"data/download.py"},
    "socket": set(),
    "jinja2": {"pages/render.py"},
    "markupsafe": {"pages/render.py"},
    "onnx": {"exporting/onnx.py", "exporting/onnx_graph.py"},
    "onnxruntime": set(),
    "numba": {"kernels/"},
    "llvmlite": {"kernels/"},
    "torch": {
        "model/",
        "evaluation/",
        "training/",
        "storage/model_file.py",
        "decoding/torch_engine.py",
        "exporting/torch_modules.py",
        "comparison/tensorboard.py",
    },
    "matplotlib": {"comparison/curves.py"},
    "pickle": set(),
    "marshal": set(),
    "shelve": set(),
}
# What may be loaded without torch: config dataclasses, texts, files, and sampling on a CPU.
NO_TORCH = {"model/config.py"}
NO_TORCH |= {f"training/{name}.py" for name in ("config", "schedule", "counters", "memory", "progress", "metrics")}

FILES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py"))


@cache
def parse(name: str) -> ast.Module:
    return ast.parse((ROOT / name).read_text("utf-8"))


def imports(tree: ast.AST, *, top_only: bool = False) -> set[str]:
    found = set()
    for node in ast.iter_child_nodes(tree) if top_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name their whole path"
            found.add(node.module)
    return found


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def module_name(file: str) -> str:
    return "chargen." + file.removesuffix(".py").replace("/", ".").removesuffix(".__init__")


def test_imports_point_down() -> None:
    inside = {file: room(module_name(file)) for file in FILES if file != "__init__.py"}
    assert set(inside.values()) <= ROOMS.keys(), "a file is in no room of the house"
    assert [
        f"{file} imports from {other}, which is not below it"
        for file, own in inside.items()
        for other in {room(name) for name in imports(parse(file)) if name.startswith("chargen.")} - {own}
        if ROOMS[other] > ROOMS[own] or ROOMS[other] == ROOMS[own] > 0
    ] == []


def test_modules_form_no_circle() -> None:
    graph = {}
    for file in FILES:
        if file != "__init__.py":
            graph[module_name(file)] = {name for name in imports(parse(file)) if name.startswith("chargen.")}
    order = list(graphlib.TopologicalSorter(graph).static_order())
    assert len(order) >= len(graph)


def test_guarded_packages_stay_in_their_place() -> None:
    assert [
        f"{file} imports {package}"
        for file in FILES
        for package in GUARDED.keys() & {name.split(".")[0] for name in imports(parse(file))}
        if not file.startswith(tuple(GUARDED[package])) or (package == "torch" and file in NO_TORCH)
    ] == []


def test_no_file_loads_torch_before_it_is_needed() -> None:
    """Only modules that are about torch import it at the top."""
    about = {
        f"model/{name}.py"
        for name in (
            "arguments",
            "weights",
            "device",
            "dropout",
            "layers",
            "pieces",
            "loss",
            "language_model",
            "cloze",
        )
    }
    about |= {"model/compiled_layers.py", "model/one_row.py", "model/thin_gradients.py", "decoding/torch_engine.py"}
    about |= {
        f"training/{name}.py"
        for name in ("train_step", "validator", "checkpoint", "setup", "teachers", "cloze_task", "cuda_graph")
    }
    about |= {"training/loss_parts.py", "training/distributed.py"}
    about |= {f"evaluation/{name}.py" for name in ("loss", "dynamic", "rows", "record_scores", "layer_rows")}
    about |= {"exporting/torch_modules.py"}
    loading = {file for file in FILES if any(m.split(".")[0] == "torch" for m in imports(parse(file), top_only=True))}
    assert loading == about


def test_nothing_runs_code_from_data() -> None:
    for file in FILES:
        for node in ast.walk(parse(file)):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "id", None)
                assert name not in {"eval", "exec", "compile", "__import__"}, f"{file}:{node.lineno}"
                if isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
                    called = f"{node.func.value.id}.{node.func.attr}"
                    assert called not in {"torch.load", "torch.save", "np.load", "pickle.load"}, f"{file}:{node.lineno}"


def test_there_are_no_rooms_for_leftovers() -> None:
    assert not {Path(file).stem for file in FILES} & {"utils", "common", "helpers", "misc"}


def test_every_promised_name_is_there() -> None:
    for name in chargen.__all__:
        assert getattr(chargen, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        chargen.nonsense  # noqa: B018
