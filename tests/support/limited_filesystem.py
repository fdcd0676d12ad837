"""Run a program as on a file system that lacks something: the kernel refuses the system calls, wherever they lead.

    python -m support.limited_filesystem symlink,link=EPERM flock=ENOLCK -- llama-gguf model download

A seccomp filter, because tests cannot mount exFAT or SMB; it needs no rights. The error numbers are those that these
file systems answer. `mmap` is refused where it would share what it writes, as SQLite's write-ahead log does.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys

# By architecture: its number for seccomp, and the system calls behind each name.
_CALLS: dict[str, tuple[int, dict[str, tuple[int, ...]]]] = {
    "x86_64": (
        0xC000003E,
        {
            "symlink": (88, 266),
            "link": (86, 265),
            "flock": (73,),
            "fsync": (74, 75),
            "fallocate": (285,),
            "chmod": (90, 91, 268, 452),
            "chown": (92, 93, 94, 260),
            "mmap": (9,),
        },
    ),
    "aarch64": (
        0xC00000B7,
        {
            "symlink": (36,),
            "link": (37,),
            "flock": (32,),
            "fsync": (82, 83),
            "fallocate": (47,),
            "chmod": (52, 53, 452),
            "chown": (54, 55),
            "mmap": (222,),
        },
    ),
}
EXFAT = ("symlink,link,chown=EPERM", "fallocate=EOPNOTSUPP")
SMB = ("symlink,link,chmod,chown=EPERM", "flock,fallocate=EOPNOTSUPP", "mmap=ENODEV")
FUSE = ("symlink,link,fallocate=ENOSYS", "fsync=EINVAL", "mmap=ENODEV")

_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_MMAP_FLAGS, _MAP_SHARED = 16 + 3 * 8, 1  # where the fourth argument is, and the bit
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _SECCOMP_MODE_FILTER = 22, 38, 2


def supported() -> bool:
    """Return whether the numbers of this machine's system calls are known."""
    return platform.machine() in _CALLS


def _statement(code: int, value: int, on_true: int = 0, on_false: int = 0) -> bytes:
    return struct.pack("HBBI", code, on_true, on_false, value)


def _filter(refusals: dict[int, int], architecture: int) -> bytes:
    lines = [
        _statement(_LOAD, 4),  # the architecture
        _statement(_EQUAL, architecture, 1, 0),
        _statement(_RETURN, _ALLOW),
        _statement(_LOAD, 0),  # the number of the call
    ]
    shared = _CALLS[platform.machine()][1]["mmap"][0]
    for call, number in refusals.items():
        if call != shared:
            lines += [_statement(_EQUAL, call, 0, 1), _statement(_RETURN, _ERRNO | number)]
    if shared in refusals:  # last, because it loads another word
        lines += [_statement(_EQUAL, shared, 0, 3), _statement(_LOAD, _MMAP_FLAGS)]
        lines += [_statement(_ANY_BIT, _MAP_SHARED, 0, 1), _statement(_RETURN, _ERRNO | refusals[shared])]
    return b"".join([*lines, _statement(_RETURN, _ALLOW)])


def refuse(*rules: str) -> None:
    """Refuse the calls of `rules` from now on, in this process and its children."""
    architecture, known = _CALLS[platform.machine()]
    refusals: dict[int, int] = {}
    for rule in rules:
        names, _, number = rule.partition("=")
        refusals |= {call: getattr(errno, number) for name in names.split(",") for call in known[name]}
    program = _filter(refusals, architecture)
    buffer = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in ((_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, header, 0, 0)):
        if libc.prctl(*arguments):
            raise OSError(ctypes.get_errno(), "seccomp")


if __name__ == "__main__":
    end = sys.argv.index("--")
    refuse(*sys.argv[1:end])
    os.execvp(sys.argv[end + 1], sys.argv[end + 1 :])  # noqa: S606 - the purpose of this program
