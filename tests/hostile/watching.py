"""Shared by the tests of hostile inputs: paths, the content of a directory, and names for long values."""

import hashlib
import os
import stat
from pathlib import Path

ROOT = Path(__file__).parents[2]
QUICKSTART = str(ROOT / "configs" / "quickstart.py")


def listing(top: Path) -> dict[str, object]:
    """Everything in a directory: kind, permissions and content of each entry. Links are not followed."""
    entries: dict[str, object] = {}
    for parent, directories, files in os.walk(top):
        for name in (*directories, *files):
            path = os.path.join(parent, name)
            status = os.lstat(path)
            content: object = None
            if stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            elif stat.S_ISREG(status.st_mode):
                with open(path, "rb") as file:
                    content = status.st_size, hashlib.file_digest(file, "sha256").hexdigest()
            entries[os.path.relpath(path, top)] = status.st_mode, content
    return entries


def short(value: object) -> str:
    """A short name for a test with this value."""
    text = ascii(value)
    return text if len(text) <= 50 else f"{text[:40]}...{len(text)}"
