"""Files and folders of the user: they must be there, be readable and be whole."""

from __future__ import annotations

import gzip
import os
import zlib
from pathlib import Path

from whydeep.core.errors import DataError

_GZIP = b"\x1f\x8b"


def existing_file(path: str | Path) -> Path:
    """Return the path of a file that is there and not empty; raises `DataError` otherwise."""
    found = Path(path).expanduser()
    if found.is_dir():
        raise DataError(found, "this is a folder", "name the file inside it")
    if not found.is_file():
        raise DataError(found, "there is no such file", "check the path")
    if not os.access(found, os.R_OK):
        raise DataError(found, "the file cannot be read", "check its permissions")
    if found.stat().st_size == 0:
        raise DataError(found, "the file is empty", "fetch or write it again")
    return found


def existing_folder(path: str | Path) -> Path:
    """Return the path of a folder that is there; raises `DataError` otherwise."""
    found = Path(path).expanduser()
    if found.is_file():
        raise DataError(found, "this is a file", "name the folder that holds it")
    if not found.is_dir():
        raise DataError(found, "there is no such folder", "check the path")
    if not os.access(found, os.R_OK | os.X_OK):
        raise DataError(found, "the folder cannot be read", "check its permissions")
    return found


def looks_like_html(start: bytes) -> bool:
    """Whether a file begins as a web page does: what a failed download often leaves under the wanted name."""
    return start.lstrip().startswith(b"<")


def contents(path: str | Path) -> bytes:
    """Return the bytes of a file, unpacked when it is gzipped (told by its first two bytes, not by its name).

    Raises `DataError` when the file is missing, empty or unreadable, when the gzip stream ends too early or fails
    its checksum, and when a name on .gz holds anything else. A file that is not packed has no checksum: there a
    changed byte cannot be seen.
    """
    found = existing_file(path)
    raw = found.read_bytes()
    if raw[:2] != _GZIP:
        if found.suffix == ".gz":
            what = "a web page (HTML)" if looks_like_html(raw[:100]) else "not a gzip file"
            raise DataError(found, f"the content is {what}", "fetch the file again")
        return raw
    try:
        unpacked = gzip.decompress(raw)
    except EOFError as fault:
        raise DataError(found, "the gzip file ends too early", "fetch it again") from fault
    except (gzip.BadGzipFile, zlib.error) as fault:
        raise DataError(found, f"the gzip file is damaged ({fault})", "fetch it again") from fault
    if not unpacked:
        raise DataError(found, "the gzip file holds nothing", "fetch it again")
    return unpacked
