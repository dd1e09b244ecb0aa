"""Write the scripts that pages run, for a linter: `python -m docs.scripts FOLDER`.

The files of a page's script share one scope, so only the whole of it says which names there are, and which are used.
"""

import sys
from pathlib import Path

from chargen.exporting.page import page_script
from chargen.exporting.page_model import worker_script
from chargen.pages.render import join_scripts

SCRIPTS = {
    "inspect.js": lambda: join_scripts("chargen.pages.coloured_text", "chargen.insight.inspect"),
    "write.js": page_script,
    "worker.js": worker_script,
}


def write_scripts(folder: Path) -> None:
    """Write each script to a file.

    Args:
        folder: where; made if there is none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, script in SCRIPTS.items():
        (folder / name).write_text(script(), "utf-8")


if __name__ == "__main__":
    write_scripts(Path(sys.argv[1]))
