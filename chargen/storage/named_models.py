"""Models known by name: the files that come with chargen."""

from pathlib import Path

FOLDER = Path(__file__).parents[1] / "pretrained"


def named_models() -> dict[str, Path]:
    """Find the models that come with chargen.

    Returns:
        Their files by name, which is a file's name without its ending.
    """
    return {file.stem: file for file in sorted(FOLDER.glob("*.safetensors"))}
