from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lapha.sandbox import BubblewrapSandbox, Limits, SandboxError, SandboxUnavailable, create_sandbox
from lapha.sandbox.jail import registry
from lapha.sandbox.jail.kernel import parent_of

from .availability import need_bubblewrap
from .conftest import LIMITS

pytestmark = pytest.mark.anyio


@pytest.fixture
def session(bubblewrap):
    opened = bubblewrap.open()
    yield opened
    opened.close()


async def test_numpy_and_sympy_are_there(session):
    result = await session.run(
        "import numpy as np, sympy as sp\nx = sp.Symbol('x')\nprint(np.arange(3).sum())\nsp.diff(x**3, x)"
    )
    assert (result.output, result.value) == ("3\n", "3*x**2")


async def test_classes_can_be_pickled_and_compared(session):
    await session.run("import pickle, dataclasses\n@dataclasses.dataclass\nclass Point:\n x: int")
    assert (await session.run("pickle.loads(pickle.dumps(Point(3))) == Point(3)")).value == "True"


async def test_standard_input_is_empty(session):
    assert "EOFError" in (await session.run("input()")).error or "RuntimeError" in (await session.run("input()")).error


async def test_the_traceback_shows_the_agents_own_lines(session):
    await session.run("def f(x):\n    return 1 / x")
    result = await session.run("a = 1\nf(0)")
    assert 'File "<step 2>", line 2, in <module>\n    f(0)\n' in result.error
    assert 'File "<step 1>", line 2, in f\n    return 1 / x\n' in result.error
    assert "guest" not in result.error


async def test_asyncio_works(session):
    code = "import asyncio\nasync def f():\n await asyncio.sleep(0.01)\n return 5\nasyncio.run(f())"
    assert (await session.run(code)).value == "5"
    assert (await session.run("asyncio.run(f())")).value == "5"


async def test_files_belong_to_the_session_like_variables(session):
    await session.run(
        "open('a.txt', 'w').write('one')\nimport os\nos.makedirs('d/e')\nopen('d/e/b', 'wb').write(b'\\xff')"
    )
    left, right = session.fork(), session.fork()
    await left.run("open('a.txt', 'a').write(' left')")
    await right.run("os.unlink('a.txt')")
    assert (await left.run("open('a.txt').read()")).value == "'one left'"
    assert (await right.run("os.listdir('.')")).value == "['d']"
    assert (await session.run("open('a.txt').read(), open('d/e/b', 'rb').read()")).value == "('one', b'\\xff')"


async def test_temporary_files_work(session):
    code = "import tempfile\nwith tempfile.NamedTemporaryFile('w+') as f:\n f.write('x'); f.seek(0); print(f.read())"
    assert (await session.run(code)).output == "x\n"


async def test_a_breach_undoes_files_too(session):
    await session.run("open('a', 'w').write('1')")
    assert (await session.run("open('a', 'w').write('2')\nopen('b', 'w').write('2')\nwhile True: pass")).breach
    assert (await session.run("import os\n(os.listdir('.'), open('a').read())")).value == "(['a'], '1')"


async def test_the_disk_is_full_at_the_quota(session):
    result = await session.run("open('a', 'wb').write(bytes(900_000))\nopen('b', 'wb').write(bytes(900_000))")
    assert result.outcome == "error"
    assert "No space left" in result.error
    assert (await session.run("import os\nos.unlink('b')\nopen('c', 'wb').write(bytes(90_000))")).value == "90000"


async def test_evicted_branches_are_rebuilt_and_do_not_show_it():
    need_bubblewrap()
    with BubblewrapSandbox(LIMITS, concurrency=2, live=4, packages=("numpy",), preload=("numpy",)) as sandbox:
        root = sandbox.open()
        await root.run(
            "import random, numpy as np\nx = [random.random(), float(np.random.rand())]\nopen('f', 'w').write('root')"
        )
        expected = (await root.run("x")).value
        branches = [root.fork() for _ in range(12)]
        for i, branch in enumerate(branches):
            await branch.run(f"y = {i}\nopen('f', 'a').write(' {i}')\nrandom.random()")
        assert sandbox.describe()["counters"]["evicted"] >= 8
        assert sandbox.describe()["processes"] <= 4 + 1
        results = await asyncio.gather(*(branch.run("(y, x, open('f').read())") for branch in branches))
        assert [r.value for r in results] == [f"({i}, {expected}, 'root {i}')" for i in range(12)]
        assert sandbox.describe()["counters"]["rebuilt"] >= 8


async def test_memory_in_all_is_bounded():
    need_bubblewrap()
    with BubblewrapSandbox(LIMITS, concurrency=2, total_bytes=100 << 20, packages=(), preload=()) as sandbox:
        branches = [sandbox.open() for _ in range(6)]
        for branch in branches:
            assert (await branch.run("x = bytearray(b'x' * (40 << 20))")).ok
        deadline = time.monotonic() + 30  # memory is measured a little later
        while sandbox.describe()["counters"].get("evicted", 0) < 4 and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        assert sandbox.describe()["counters"]["evicted"] >= 4
        assert sandbox.describe()["private_bytes"] <= 100 << 20
        results = await asyncio.gather(*(branch.run("len(x)") for branch in branches))
        assert {result.value for result in results} == {str(40 << 20)}


async def test_a_state_that_cannot_be_rebuilt_says_so():
    need_bubblewrap()
    with BubblewrapSandbox(LIMITS, concurrency=1, live=1, packages=(), preload=()) as sandbox:
        session, other = sandbox.open(), sandbox.open()
        # holds only while the first run is recent: run again, it breaks a limit
        began = time.time()
        code = f"import time\nif time.time() > {began + 1.0}:\n while True: pass"
        assert (await session.run(code)).ok
        await other.run("1")
        await asyncio.sleep(max(0.0, began + 1.1 - time.time()))
        result = await session.run("1")
        assert result.outcome == "lost"
        assert "could not be continued, nor made again" in result.error


async def test_the_jail_is_started_again_if_its_template_dies():
    need_bubblewrap()
    with BubblewrapSandbox(LIMITS, concurrency=2, packages=(), preload=()) as sandbox:
        session = sandbox.open()
        await session.run("x = 5")
        os.kill(_template(sandbox.supervisor_pid), signal.SIGKILL)
        child = session.fork()
        deadline = time.monotonic() + 20
        while True:  # a run may be served before the death is noticed, and one that was under way may have died with it
            result = await child.run("x")
            if (result.ok and sandbox.describe()["restarts"] == 1) or time.monotonic() > deadline:
                break
        assert result.value == "5"
        assert sandbox.describe()["restarts"] == 1


def _template(supervisor: int) -> int:
    """The process of the jail whose parent is none of Python's."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and _ancestor(int(entry.name), supervisor):
            command = (entry / "cmdline").read_bytes()
            if b"guest.py" in command and b"bwrap" not in command.split(b"\0")[0]:
                parent = parent_of(int(entry.name))
                if b"bwrap" in Path(f"/proc/{parent}/cmdline").read_bytes().split(b"\0")[0]:
                    return int(entry.name)
    raise AssertionError("no template found")


def _ancestor(pid: int, ancestor: int) -> bool:
    while pid > 1:
        pid = parent_of(pid)
        if pid == ancestor:
            return True
    return False


def _inside(supervisor: int) -> int:
    """How many processes there are below a supervisor."""
    pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return sum(_ancestor(pid, supervisor) for pid in pids)


# what a branch may do to those that fork it later: a trap must cost its own descendants alone
_TRAP = "import os\ndef spin():\n while True: pass\nos.register_at_fork({}=spin)".format
TRAPS = {
    "the parent never comes back": _TRAP("after_in_parent"),
    "the child never shows up": _TRAP("after_in_child"),
    "no fork ever": _TRAP("before"),
    "the child sleeps": "import os, time\nos.register_at_fork(after_in_child=lambda: time.sleep(40))",
    "the fork sleeps": "import os, time\nos.register_at_fork(before=lambda: time.sleep(40))",
    "the parent sleeps": "import os, time\nos.register_at_fork(after_in_parent=lambda: time.sleep(40))",
    "the child dies": "import os\nos.register_at_fork(after_in_child=lambda: os._exit(0))",
    "the parent dies": "import os\nos.register_at_fork(after_in_parent=lambda: os._exit(0))",
    "no fork at all": "import os\nos.fork = lambda: 1",
    "no fork, and a claim to be the child": "import os\nos.fork = lambda: 0",
}


async def test_traps_hurt_nobody_else_and_leave_nothing_behind(monkeypatch):
    need_bubblewrap()
    with BubblewrapSandbox(LIMITS, concurrency=4, packages=(), preload=()) as sandbox:
        root = sandbox.open()
        await root.run("x = 1")
        quiet = _inside(sandbox.supervisor_pid)

        async def spring(code):
            trapped = root.fork()
            assert (await trapped.run(code)).ok
            begin = time.monotonic()
            outcome = (await trapped.fork().run("x + 1")).outcome
            trapped.close()
            return outcome, time.monotonic() - begin

        sprung = asyncio.gather(*(spring(code) for code in TRAPS.values()))
        while not sprung.done():
            assert (await root.fork().run("x")).value == "1"
            await asyncio.sleep(0.2)
        outcomes = dict(zip(TRAPS, await sprung))
        assert all(outcome in ("ok", "lost", "crashed", "timeout") for outcome, _ in outcomes.values()), outcomes
        # the fork counts as the run's time
        assert max(seconds for _, seconds in outcomes.values()) < LIMITS.wall_seconds + 1
        for trap in ("the child never shows up", "the child sleeps", "no fork ever", "the fork sleeps"):
            assert outcomes[trap][0] == "timeout"
        assert outcomes["the child dies"][0] == "lost"
        deadline = time.monotonic() + 10
        while _inside(sandbox.supervisor_pid) > quiet and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        assert _inside(sandbox.supervisor_pid) == quiet


async def test_a_fork_whose_child_is_killed_costs_seconds_and_no_state():
    """The parent is ended at the first look, and made again; forks that went well are not even counted."""
    need_bubblewrap()
    with BubblewrapSandbox(LIMITS, concurrency=2, packages=(), preload=()) as sandbox:
        ordinary, unlucky = sandbox.open(), sandbox.open()
        assert (await ordinary.run("y = 1")).ok
        began = time.time()
        trap = "os.register_at_fork(after_in_child=lambda: os._exit(0))"
        code = f"import os, time\nx = 41\nif time.time() < {began + registry.FORK_LOOK_SECONDS}: {trap}"
        assert (await unlucky.run(code)).ok
        forks = [ordinary.fork() for _ in range(4)]
        waiting = asyncio.create_task(unlucky.fork().run("x + 1"))
        assert [(await fork.run("y")).value for fork in forks] == ["1"] * 4
        assert (await waiting).value == "42"
        assert time.time() - began < LIMITS.wall_seconds + 1
        counters = sandbox.describe()["counters"]
        assert counters["stuck_fork"] == counters["rebuilt"] == 1


def test_a_missing_program_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        SandboxUnavailable, match=r"needs the program 'bwrap'. Install it with: apt-get install bubblewrap"
    ):
        create_sandbox("bubblewrap")


def test_a_machine_that_cannot_do_it_says_why(monkeypatch, tmp_path):
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\necho 'bwrap: No permissions to create a new namespace' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(SandboxUnavailable, match=r"does not start on this machine: .*No permissions .*user namespaces"):
        create_sandbox("bubblewrap")


def test_other_platforms_are_told_what_to_use(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(SandboxUnavailable, match=r"needs Linux on x86-64, .* on aarch64. Use the monty sandbox"):
        create_sandbox("bubblewrap")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"concurrency": 0}, r"concurrency: expected an integer in \[1, 256\], got 0"),
        ({"live": 0}, "live: expected an integer >= 1, got 0"),
        ({"total_bytes": 5}, "total_bytes: expected an integer >= 16777216, got 5"),
        ({"packages": ("no_such_package",)}, "packages: expected installed top-level packages, got 'no_such_package'"),
        ({"packages": ("os.path",)}, "packages: expected installed top-level packages, got 'os.path'"),
        ({"packages": ("numpy",), "preload": ("sympy",)}, r"preload: expected some of the packages, got \['sympy'\]"),
    ],
)
def test_options_are_checked(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        create_sandbox("bubblewrap", **options)


async def test_a_closed_sandbox_ends_what_is_under_way():
    need_bubblewrap()
    sandbox = BubblewrapSandbox(Limits(wall_seconds=30, cpu_seconds=30), concurrency=1, packages=(), preload=())
    session = sandbox.open()
    running = asyncio.create_task(session.run("while True: pass"))
    await asyncio.sleep(0.2)
    await asyncio.to_thread(sandbox.close)
    with pytest.raises(SandboxError, match=r"closed|ended"):
        await running
    with pytest.raises(SandboxError, match="closed"):
        sandbox.open()


async def test_a_supervisor_that_is_killed_fails_loudly_and_leaves_nothing():
    need_bubblewrap()
    files = set(os.listdir("/proc/self/fd"))
    sandbox = BubblewrapSandbox(LIMITS, concurrency=1, packages=(), preload=())
    session = sandbox.open()
    await session.run("x = 1")
    supervisor = sandbox.supervisor_pid
    os.kill(supervisor, signal.SIGKILL)
    with pytest.raises(SandboxError, match=r"supervisor has ended"):
        await session.run("while True: pass")
    with pytest.raises(SandboxError, match=r"supervisor has ended"):
        sandbox.open()
    sandbox.close()
    assert not Path(f"/proc/{supervisor}").exists()
    assert set(os.listdir("/proc/self/fd")) <= files


_OWNER = """
import asyncio, sys
from lapha.sandbox import BubblewrapSandbox
sandbox = BubblewrapSandbox(packages=(), preload=())
asyncio.run(sandbox.open().run("x = 1"))
print(sandbox.supervisor_pid, flush=True)
sys.stdin.read()
"""


def test_nothing_outlives_a_process_that_is_killed():
    need_bubblewrap()
    owner = subprocess.Popen([sys.executable, "-c", _OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    top = int(owner.stdout.readline())
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    behind = [pid for pid in pids if pid == top or _ancestor(pid, top)]
    assert len(behind) >= 6  # two walls of two processes each, the launcher, the supervisor, the template
    owner.kill()
    owner.wait()
    owner.stdin.close()
    owner.stdout.close()
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}/exe").exists() for pid in behind) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not [pid for pid in behind if Path(f"/proc/{pid}/exe").exists()]


async def test_a_sandbox_made_in_a_thread_outlives_the_thread():
    need_bubblewrap()
    made = []
    thread = threading.Thread(target=lambda: made.append(BubblewrapSandbox(LIMITS, packages=(), preload=())))
    thread.start()
    thread.join()
    await asyncio.sleep(0.3)
    with made[0] as sandbox:
        assert (await sandbox.open().run("1 + 1")).value == "2"


def test_a_process_that_cannot_be_started_is_named_and_nothing_stays_open(monkeypatch):
    def no_more(*_, **__):
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    files = set(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(subprocess.Popen, "__init__", no_more)
    with pytest.raises(SandboxUnavailable, match=r"does not start on this machine: .*Resource temporarily unavailable"):
        BubblewrapSandbox(LIMITS, packages=(), preload=())
    assert set(os.listdir("/proc/self/fd")) <= files


async def test_a_fork_of_this_process_cannot_disturb_the_sandbox(bubblewrap):
    session = bubblewrap.open()
    await session.run("x = 1")
    pid = os.fork()
    if pid == 0:
        try:
            bubblewrap._link.new_session("open")
        except SandboxError:
            bubblewrap.close()
            os._exit(0)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert (await session.run("x")).value == "1"
