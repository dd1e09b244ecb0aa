"""Files from the web: over https only, as large as they are said to be, and of a known SHA-256.

What has arrived is kept in a file that ends with .part, and the next try goes on from there. The file itself appears
when it is whole and right, and not before.
"""

import contextlib
import http.client
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from chargen.data.named_corpora import has_hash
from chargen.durable import describe_os_error, make_folder, move_durably, wait_for_folder
from chargen.errors import ChargenError, WriteError, amount, truncate

TIMEOUT = 30.0
"""Seconds without a byte after which a connection counts as broken."""
BLOCK = 1 << 16
"""Bytes that are read at a time, at most."""


class ConnectionBroken(ChargenError):
    """A file could not be transferred. What has arrived is kept, so that the next try goes on from there."""


class WrongFile(ChargenError):
    """A server has another file than it should. Nothing of it is kept."""


def check_address(address: str) -> None:
    """Check that an address may be asked for a file.

    Args:
        address: of a file, or to which a server redirects.

    Raises:
        ConnectionBroken: it is not https.
    """
    if urlsplit(address).scheme != "https" or not urlsplit(address).hostname:
        raise ConnectionBroken(f"{truncate(address, 200)} is not an https address, and nothing is fetched from there")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to where files may be fetched from."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        check_address(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)

    def http_error_302(self, req: Any, fp: Any, code: int, msg: str, headers: Any) -> Any:
        with fp:  # which nobody closes where the redirect is refused
            return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def download(address: str, path: Path, size: int, sha256: str, progress: Callable[[int], object]) -> None:
    """Fetch a file; another process that fetches it meanwhile is waited for.

    Args:
        address: https.
        path: where it is to be; its folder is for it alone.
        size: bytes.
        sha256: 64 hexadecimal digits.
        progress: called with the bytes so far after every block.

    Raises:
        ConnectionBroken: where it does not arrive, or only a part of it.
        WrongFile: where it is another file than it is said to be.
        WriteError: where it cannot be written.
    """
    check_address(address)
    part = path.with_name(f"{path.name}.part")
    try:
        make_folder(path.parent)
        with wait_for_folder(path.parent):
            if not has_hash(path, size, sha256):
                _complete(address, part, size, sha256, progress)
                move_durably(part, path)
    except OSError as error:
        raise WriteError(f"cannot write {path}: {describe_os_error(error, path.parent, size)}") from error


def _complete(address: str, part: Path, size: int, sha256: str, progress: Callable[[int], object]) -> None:
    """Fetch what a part lacks; where what was there before was of another file, all of it once more."""
    try:
        while True:
            resumed = _fetch(address, part, size, progress)
            if has_hash(part, size, sha256):
                return
            if not resumed:
                raise WrongFile(f"{address} has another SHA-256 than it should: nothing of it is kept")
            part.unlink(missing_ok=True)
    except WrongFile:
        part.unlink(missing_ok=True)
        raise


def _fetch(address: str, part: Path, size: int, progress: Callable[[int], object]) -> bool:
    """Fetch what a part lacks; returns whether there was something of it before."""
    begun = part.stat().st_size if part.is_file() else 0
    if begun >= size:
        return True
    headers = {"User-Agent": "chargen", "Accept-Encoding": "identity"}
    if begun:
        headers["Range"] = f"bytes={begun}-"
    with contextlib.ExitStack() as stack:
        with _name_failures(begun, size):
            opener = urllib.request.build_opener(_Redirects)
            try:
                response = opener.open(urllib.request.Request(address, headers=headers), timeout=TIMEOUT)
            except urllib.error.HTTPError as error:
                error.close()
                if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and begun:
                    part.unlink()
                    return True
                raise ConnectionBroken(f"the server says {error.code} {truncate(error.reason)}") from error
            except ValueError as error:
                raise ConnectionBroken(f"the server redirects to what is no address ({truncate(error)})") from error
            stack.enter_context(response)
        start = _check_response(response, begun, size)
        file = stack.enter_context(open(part, "ab" if start else "wb"))
        _copy(response, file, start, size, progress)
    return start > 0


def _check_response(response: Any, begun: int, size: int) -> int:
    """The byte from which on the file comes; raises WrongFile where it has another size."""
    length, start = response.headers.get("Content-Length", ""), 0
    if response.status == http.HTTPStatus.PARTIAL_CONTENT:
        place = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if place is None or place[1] != str(begun):
            raise ConnectionBroken("the server sends another part of the file than was asked for")
        start, length = begun, place[2]
    if length.isdecimal() and length != str(size):
        url, stated = truncate(response.url, 200), truncate(length, 20)
        raise WrongFile(f"{url} has a size of {stated} and should have {amount(size, 'byte')}: it is another file")
    return start


def _copy(response: Any, file: IO[bytes], start: int, size: int, progress: Callable[[int], object]) -> None:
    done = start
    while True:
        with _name_failures(done, size):
            block = response.read1(BLOCK)
        done += len(block)
        if done > size:
            raise WrongFile(
                f"{truncate(response.url, 200)} has more than the {amount(size, 'byte')} that it should have"
            )
        if not block:
            break
        file.write(block)
        progress(done)
    if done < size:
        raise ConnectionBroken(_describe_break("it ended early", done, size))


@contextlib.contextmanager
def _name_failures(done: int, size: int) -> Iterator[None]:
    """Turn what goes wrong between two machines into a ConnectionBroken."""
    try:
        yield
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        text = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
        if isinstance(reason, ssl.SSLCertVerificationError):
            text = (
                f"{reason.verify_message}; with Python from python.org on macOS, run Install Certificates.command once"
            )
        raise ConnectionBroken(_describe_break(truncate(text, 150), done, size)) from error


def _describe_break(reason: str, done: int, size: int) -> str:
    return reason + f", after {done:,} of {amount(size, 'byte')}, from where the next try goes on" * (done > 0)
