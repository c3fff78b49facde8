"""Runs a Python program as an ordinary user, if this is root: ``python as_nobody.py PROGRAM PATH…``.

The interpreter, the packages and the PATHs may lie where only root may look. They are then shown at the same places in a mount
namespace of this process alone, whose other contents stay what they are.
"""

import ctypes
import os
import sys
import sysconfig
from pathlib import Path

NOBODY = 65534
CANNOT = 77
"""Exit status where root itself may not mount anything here."""

_NEW_MOUNTS, _BIND, _RECURSIVE, _PRIVATE = 0x20000, 0x1000, 0x4000, 0x40000
_libc = ctypes.CDLL(None, use_errno=True)


def call(name, *arguments):
    if getattr(_libc, name)(*arguments) != 0:
        print(f"{name}: {os.strerror(ctypes.get_errno())}", file=sys.stderr)
        sys.exit(CANNOT)


def mount(source, target, kind=None, flags=0, options=None):
    encoded = (None if text is None else str(text).encode() for text in (source, target, kind))
    call("mount", *encoded, ctypes.c_ulong(flags), None if options is None else options.encode())


def closed_folder(path):
    """The first folder on the way to `path` that others may not pass, or None."""
    return next((folder for folder in (*reversed(path.parents), path) if not folder.stat().st_mode & 0o005), None)


def show(paths):
    """Make `paths` reachable for everybody."""
    hidden = {path: closed for path in paths if (closed := closed_folder(path)) is not None}
    if not hidden:
        return
    call("unshare", _NEW_MOUNTS)
    mount("none", "/", flags=_RECURSIVE | _PRIVATE)
    kept = {path: os.open(path, os.O_PATH) for path in hidden}
    for folder in set(hidden.values()):
        mount("tmpfs", folder, "tmpfs", options="mode=0755")
    for path, descriptor in kept.items():
        path.mkdir(parents=True, exist_ok=True)
        mount(f"/proc/self/fd/{descriptor}", path, flags=_BIND | _RECURSIVE)


def main(program, *paths):
    if os.geteuid() == 0:
        places = [sys.base_prefix, sys.prefix, sysconfig.get_path("purelib"), *paths]
        show(sorted({Path(place).resolve() for place in places}))
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    os.environ |= {"HOME": "/", "PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1"}
    os.chdir("/")
    os.execv(sys.executable, [sys.executable, "-c", program])


if __name__ == "__main__":
    main(*sys.argv[1:])
