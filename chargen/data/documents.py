"""Documents -> the text in them: Word, OpenDocument, RTF, EPUB and HTML by pandoc, PDF by PDFium.

Both come with the extra `documents`. Pandoc runs as a process of its own, in its sandbox: it reads no other file and no
network, in bounded memory and time.
"""

import subprocess
from importlib.util import find_spec
from pathlib import PurePath

from chargen.errors import DataError, SettingError, truncate

KINDS = {
    ".docx": "docx", ".odt": "odt", ".rtf": "rtf", ".epub": "epub", ".fb2": "fb2", ".pdf": "pdf",
    ".html": "html", ".htm": "html", ".xhtml": "html",
}  # fmt: skip
"""What a document is, by the end of its name."""
OPTIONS = [f"--{option}" for option in ("wrap=none", "sandbox")]
"""A paragraph is a line; no other file and no network is read."""
MEMORY, SECONDS = "4g", 600
"""What pandoc may take for a document."""


def document_kind(path: str, wanted: bool | None) -> str:
    """Say what document a file is that is to become its text.

    Args:
        path: of the file, or its suffix.
        wanted: whether documents become their text; None: those that are no text themselves, where that is possible.

    Returns:
        "docx", "odt", "rtf", "epub", "fb2", "pdf" or "html"; "" for another file, or where its bytes are wanted.
    """
    kind = KINDS.get((PurePath(path).suffix or path).lower(), "")
    if not kind or wanted is False:
        return ""
    if wanted is None and (kind in ("html", "fb2") or not find_spec("pypdfium2" if kind == "pdf" else "pypandoc")):
        return ""
    return kind


def convert(content: bytes, kind: str) -> str:
    """Convert a document to the text in it.

    Args:
        content: of its file.
        kind: as `document_kind` says.

    Returns:
        The text, with LF at line ends and an empty line between paragraphs.

    Raises:
        DataError: it is damaged or holds no text.
        SettingError: the packages are missing.
    """
    try:
        text = _convert_pdf(content) if kind == "pdf" else _convert_by_pandoc(content, kind)
    except ImportError as error:
        raise SettingError("`documents` needs more packages: pip install 'chargen[documents]'", "documents") from error
    except (OSError, RuntimeError, ValueError, subprocess.SubprocessError) as error:
        raise DataError(truncate(str(error).strip().splitlines()[0], 200)) from error
    if not text.strip():
        raise DataError("it holds no text; are its pages pictures?")
    return text


def _convert_by_pandoc(content: bytes, kind: str) -> str:
    import pypandoc

    command = [pypandoc.get_pandoc_path(), "-f", kind, "-t", "plain", *OPTIONS]
    limits = ["+RTS", f"-M{MEMORY}", "-RTS"]
    done = subprocess.run([*command, *limits], input=content, capture_output=True, timeout=SECONDS, check=False)
    if done.returncode:
        raise ValueError(done.stderr.decode("utf-8", "replace").strip() or f"pandoc ended with {done.returncode}")
    return done.stdout.decode()


def _convert_pdf(content: bytes) -> str:
    """The text of all pages, each from a new line."""
    import pypdfium2

    with pypdfium2.PdfDocument(content) as document:
        pages = [page.get_textpage().get_text_range() for page in document]
    return "\n".join(page.replace("\r\n", "\n").removesuffix("\n") for page in pages) + "\n"
