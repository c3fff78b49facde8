"""The bubblewrap sandbox needs no rights: it works for an ordinary user, which the suite's own may not be."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import lapha

from .as_nobody import CANNOT, NOBODY
from .availability import need_bubblewrap

SCRIPT = Path(__file__).with_name("as_nobody.py")
SOURCES = Path(lapha.__file__).resolve().parents[1]

PROBE = "import ctypes, os, sys; print(os.getuid()); sys.exit(ctypes.CDLL(None).unshare(0x10000000) != 0)"

PROGRAM = """
import asyncio, json, os
from lapha.sandbox import BubblewrapSandbox, Limits

CODES = {
    "state": "x + 1",
    "numpy": "import numpy as np\\nint(np.arange(4).sum())",
    "file": "open('note', 'w').write('abc')\\nopen('note').read()",
    "time": "while True: pass",
    "memory": "y = [0] * 10**9",
    "secret": "open('/etc/passwd').read()",
    "network": "import socket\\nsocket.socket()",
    "fork": "import os\\nos.fork()",
}

async def main():
    limits = Limits(wall_seconds=5, cpu_seconds=0.5, memory_bytes=128 << 20)
    with BubblewrapSandbox(limits, concurrency=2, live=3, packages=("numpy",), preload=("numpy",)) as sandbox:
        root = sandbox.open()
        await root.run("x = 41")
        found = {"uid": os.getuid()}
        for name, code in CODES.items():
            result = await root.fork().run(code)
            found[name] = [result.outcome, result.value, (result.error or "").strip().splitlines()[-1:]]
        found["afterwards"] = [(await root.run("x")).value]
    print(json.dumps(found))

asyncio.run(main())
"""


def as_ordinary_user(program):
    command = [sys.executable, str(SCRIPT), program, str(SOURCES)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode == CANNOT:
        pytest.skip(f"the interpreter cannot be shown to another user here ({done.stderr.strip()})")
    return done


def test_an_ordinary_user_has_the_whole_jail():
    need_bubblewrap()
    probe = as_ordinary_user(PROBE)
    if probe.returncode != 0:
        pytest.skip(f"the kernel forbids user namespaces to user {probe.stdout.strip()}")
    done = as_ordinary_user(PROGRAM)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["uid"] != 0
    assert found["uid"] == NOBODY or int(probe.stdout) == found["uid"]
    assert found["state"][:2] == ["ok", "42"]
    assert found["numpy"][:2] == ["ok", "6"]
    assert found["file"][:2] == ["ok", "'abc'"]
    assert found["time"][0] in ("cpu", "timeout")
    assert found["memory"][0] == "memory"
    assert found["secret"] == ["error", None, ["FileNotFoundError: [Errno 2] No such file or directory: '/etc/passwd'"]]
    assert found["network"][0] == found["fork"][0] == "error"
    assert all("PermissionError" in found[name][2][0] for name in ("network", "fork"))
    assert found["afterwards"] == ["41"]
