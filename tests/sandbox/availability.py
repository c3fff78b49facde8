"""Whether bubblewrap can be tested here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

_PROBE = "import ctypes, sys; sys.exit(ctypes.CDLL(None).unshare(0x10000000) != 0)"


def need_bubblewrap() -> None:
    """Skip where the kernel forbids user namespaces, and on machines without bwrap that do not insist on it."""
    if sys.platform != "linux" or subprocess.run([sys.executable, "-c", _PROBE], check=False).returncode != 0:
        pytest.skip("the kernel forbids user namespaces")
    if shutil.which("bwrap") is None and not os.environ.get("LAPHA_REQUIRE_BUBBLEWRAP"):
        pytest.skip(
            "bwrap is not installed (apt-get install bubblewrap); LAPHA_REQUIRE_BUBBLEWRAP=1 makes this an error"
        )
