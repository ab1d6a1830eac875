"""A file of a reinforcement that is not what its writer left, and how files are opened so that none can harm us."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from buttress.errors import StoreError

_FLAGS = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


class DamageError(StoreError):
    """A file that is missing, cut, changed or not ours.

    Args:
        file: which.
        place: where in it, such as "plane of view 3, rows 0-99".
        what: what is wrong.
        mend: what the user can do.
    """

    def __init__(self, file: Path, place: str, what: str, mend: str | None = None) -> None:
        self.file, self.place, self.what = file, place, what
        mend = mend or f"run buttress verify {file.parent}"
        super().__init__(f"{file}: {place}: {what}; {mend}")

    def __reduce__(self) -> tuple[type[DamageError], tuple[Path, str, str]]:
        return type(self), (self.file, self.place, self.what)


def open_regular(path: Path) -> BinaryIO:
    """Open a plain file to read: no link to elsewhere, no pipe that would block.

    Raises:
        DamageError: there is none.
    """
    try:
        descriptor = os.open(path, _FLAGS)
    except OSError as failure:
        what = "a symbolic link, which a reinforcement never holds" if path.is_symlink() else f"{failure.strerror}"
        raise DamageError(path, "file", f"cannot be opened ({what})") from failure
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise DamageError(path, "file", "not a plain file")
    return os.fdopen(descriptor, "rb")


def read_regular(path: Path, limit: int) -> bytes:
    """All bytes of a plain file of at most `limit` bytes.

    Raises:
        DamageError: there is none, or it is larger.
    """
    with open_regular(path) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise DamageError(path, "file", f"larger than {limit:,} bytes, which no such file of ours is")
    return data
