"""The two walls, both bwrap: the outer one around the supervisor and all it starts, the inner one around the guests.

Behind the outer wall there is the C library, Python's standard library, the packages, the jail's own code and bwrap, all
read-only, and the processes behind the wall. Behind the inner one there is less: see `inner`.
"""

from __future__ import annotations

import array
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lapha.sandbox.jail.confine import WORK_AT

_CODE_AT = "/lapha/code"
GUEST_AT = f"{_CODE_AT}/lapha/sandbox/jail/guest.py"
_GUEST_FILES = ("guest.py", "confine.py", "wire.py")
PACKAGES_AT = "/lapha/packages"
# isolated, and with nothing on its path but the standard library once it has loaded its own two files
_BOOT = (
    f"import sys; sys.path.insert(0, {_CODE_AT!r}); from lapha.sandbox.jail import guest; del sys.path[0]; guest.main()"
)
OUTER_BOOT = (
    f"import sys; sys.path.insert(0, {_CODE_AT!r}); "
    "from lapha.sandbox.jail.launcher import main; main(int(sys.argv[1]))"
)
_BWRAP_AT = "/lapha/bwrap"
# user, mount, process, IPC, network, UTS and cgroup namespaces; no rights; nothing outlives the process that starts it
_APART: tuple[str, ...] = ("--unshare-all", "--unshare-user", "--uid", "65534", "--gid", "65534", "--cap-drop", "ALL")
_APART += ("--new-session", "--die-with-parent", "--clearenv", "--chdir", "/")
_LIBRARY_FOLDERS = ("/lib", "/lib64", "/usr/lib", "/usr/lib64")
_DEVICES = ("null", "zero", "full", "random", "urandom")


def outer(packages: dict[str, str], channel: int) -> list[str]:
    """The command line of the outer wall, with the launcher in it.

    Args:
        packages: name in the jail → path here, of the packages that code may import.
        channel: file descriptor of the connection to lapha.

    Raises:
        FileNotFoundError: bwrap is not installed.
    """
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise FileNotFoundError("bwrap")
    arguments = [bwrap, *_APART, "--hostname", "lapha", *_system(), *_devices(), "--proc", "/proc", "--tmpfs", "/tmp"]
    arguments += ["--ro-bind", os.path.realpath(bwrap), _BWRAP_AT]
    arguments += ["--ro-bind", str(Path(__file__).parent), str(Path(GUEST_AT).parent)]
    for name, path in packages.items():
        arguments += ["--ro-bind", path, f"{PACKAGES_AT}/{name}"]
    arguments += ["--remount-ro", "/", "--setenv", "PATH", "/nowhere"]
    return [*arguments, _interpreter(), "-I", "-S", "-B", "-c", OUTER_BOOT, str(channel)]


def inner(packages: Iterable[str], channel: int) -> list[str]:
    """The command line of the inner wall, with the template in it; to be run behind the outer one.

    Args:
        packages: names of the packages that code may import.
        channel: file descriptor on which the guest is configured.
    """
    arguments = [_BWRAP_AT, *_APART, "--hostname", "jail", *_system(), *_devices()]
    for path in [str(Path(GUEST_AT).with_name(name)) for name in _GUEST_FILES]:
        arguments += ["--ro-bind", path, path]
    for path in [f"{PACKAGES_AT}/{name}" for name in packages]:
        arguments += ["--ro-bind", path, path]
    arguments += ["--dir", WORK_AT, "--remount-ro", "/"]
    environment = {"PYTHONHASHSEED": "0", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "PATH": "/nowhere", "HOME": "/"}
    environment |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    for name, value in environment.items():
        arguments += ["--setenv", name, value]
    return [*arguments, _interpreter(), "-s", "-S", "-B", "-P", "-c", _BOOT, GUEST_AT, str(channel)]


def _devices() -> list[str]:
    arguments = ["--tmpfs", "/dev"]
    for device in _DEVICES:
        arguments += ["--dev-bind", f"/dev/{device}", f"/dev/{device}"]
    return [*arguments, "--remount-ro", "/dev"]


def _interpreter() -> str:
    return os.path.realpath(sys.executable)


def _system() -> list[str]:
    """The C library, the interpreter and its standard library, read-only; nothing else of this machine."""
    arguments: list[str] = []
    for folder in _LIBRARY_FOLDERS:
        if os.path.islink(folder):
            arguments += ["--symlink", os.readlink(folder), folder]
        elif os.path.isdir(folder):
            arguments += ["--ro-bind", folder, folder]
    prefix = os.path.realpath(sys.base_prefix)
    if prefix in ("/usr", "/usr/local"):
        arguments += ["--ro-bind", _interpreter(), _interpreter()]
        if prefix == "/usr/local":
            arguments += ["--ro-bind", "/usr/local/lib", "/usr/local/lib"]
    else:
        arguments += ["--ro-bind", prefix, prefix]
    # what happens to be installed beside the standard library is nobody's business inside
    for name in ("purelib", "platlib"):
        folder = sysconfig.get_path(name, vars={"base": prefix, "platbase": prefix})
        if folder and os.path.isdir(folder) and folder not in arguments:
            arguments += ["--tmpfs", folder, "--remount-ro", folder]
    if os.path.exists("/etc/ld.so.cache"):
        arguments += ["--ro-bind", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    return arguments


class JailFailed(Exception):
    """The jail did not start; the message is what bwrap or the guest said."""


def start(arguments: list[str], channel: socket.socket, inside: socket.socket, config: dict[str, Any], seconds: float):
    """Start the jail and wait until its template is confined.

    Args:
        arguments: from `inner`, with `inside`'s file descriptor.
        channel: this end of the configuration channel.
        inside: the guest's end.
        config: what the guest is told.
        seconds: how long the start may take.

    Returns:
        The bwrap process, and the filter's file descriptor.

    Raises:
        JailFailed: it did not start; names the reason.
    """
    process = subprocess.Popen(
        arguments,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        pass_fds=[inside.fileno()],
    )
    inside.close()
    channel.settimeout(seconds)
    try:
        proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        rights = array.array("i", [proc]).tobytes()
        channel.sendmsg([b"/"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        os.close(proc)
        channel.sendall(json.dumps(config).encode() + b"\n")
        word, ancillary, _, _ = channel.recvmsg(16, socket.CMSG_SPACE(4))
    except OSError as error:
        word, ancillary = b"", []
        reason = f"{error}; "
    else:
        reason = ""
    if word != b"ready" or not ancillary:
        process.kill()
        _, said = process.communicate()
        text = said.decode("utf-8", "replace").strip().splitlines()
        raise JailFailed(reason + (text[-1] if text else f"it ended with exit status {process.returncode}"))
    descriptors = array.array("i")
    descriptors.frombytes(ancillary[0][2][:4])
    if process.stderr is not None:
        process.stderr.close()
    return process, descriptors[0]


def allow_files(count: int) -> None:
    """Each live state costs an open file.

    Raises:
        JailFailed: this user may not have so many.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        raise JailFailed(f"it needs {count} open files and may have {hard} (ulimit -Hn); keep fewer states live")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
