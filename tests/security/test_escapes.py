"""The escape corpus, inside each sandbox and, where that is harmless, outside as a control."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lapha.sandbox import BubblewrapSandbox, Limits, MontySandbox
from sandbox.availability import need_bubblewrap

from .canaries import Canaries
from .corpus import all_programs

PROGRAMS = {program.name: program for program in all_programs()}
LIMITS = Limits(
    wall_seconds=3.0,
    cpu_seconds=0.5,
    memory_bytes=192 << 20,
    output_bytes=20_000,
    code_bytes=100_000,
    file_bytes=2 << 20,
)
GRACE = 1.0  # seconds beyond the limits within which a run must have ended
AT_ONCE = 8


async def _attack(sandbox, canaries):
    """Run every program in a branch of its own, and after each one a sibling; what came of both."""
    root = sandbox.open()
    await root.run("x = 41")
    gate = asyncio.Semaphore(AT_ONCE)
    found = {}

    async def attack(program):
        async with gate:
            branch, sibling = root.fork(), root.fork()
            result = await branch.run(canaries.fill(program.code))
            found[program.name] = (result, await sibling.run("x + 1"))
            branch.close()
            sibling.close()

    await asyncio.gather(*(attack(program) for program in PROGRAMS.values()))
    root.close()
    return found


class Attacked:
    """What came of an attack with the whole corpus."""

    def __init__(self, sandbox, folder: Path) -> None:
        self.canaries = Canaries(folder)
        try:
            self.sandbox = sandbox()
            try:
                self.found = asyncio.run(_attack(self.sandbox, self.canaries))
                self.described = self.sandbox.describe()
            finally:
                self.sandbox.close()
            self.harm = self.canaries.harm()
        finally:
            self.canaries.close()


@pytest.fixture(scope="module")
def bubblewrap(tmp_path_factory):
    need_bubblewrap()
    folder = tmp_path_factory.mktemp("bubblewrap")
    return Attacked(lambda: BubblewrapSandbox(LIMITS, concurrency=AT_ONCE), folder)


@pytest.fixture(scope="module")
def monty(tmp_path_factory):
    return Attacked(lambda: MontySandbox(LIMITS, concurrency=2), tmp_path_factory.mktemp("monty"))


@pytest.mark.parametrize("name", PROGRAMS)
def test_bubblewrap_holds(name, bubblewrap):
    result, sibling = bubblewrap.found[name]
    assert result.outcome in PROGRAMS[name].ends, result
    assert "ESCAPED" not in f"{result.output}{result.value}"
    assert bubblewrap.canaries.secret not in str(result)
    assert result.seconds <= LIMITS.wall_seconds + GRACE
    assert len(result.output) <= LIMITS.output_bytes
    assert (sibling.outcome, sibling.value) == ("ok", "42")


@pytest.mark.parametrize("name", PROGRAMS)
def test_monty_holds(name, monty):
    result, sibling = monty.found[name]
    assert "ESCAPED" not in f"{result.output}{result.value}"
    assert monty.canaries.secret not in str(result)
    assert result.seconds <= LIMITS.wall_seconds + GRACE
    assert (sibling.outcome, sibling.value) == ("ok", "42")


def test_bubblewrap_harms_nothing(bubblewrap):
    assert bubblewrap.harm == []


def test_monty_harms_nothing(monty):
    assert monty.harm == []


def test_the_jail_is_still_the_same_one(bubblewrap):
    """Nobody has brought it down, and all sessions being closed, nobody is left in it but the template."""
    assert bubblewrap.described["restarts"] == 0
    assert bubblewrap.described["processes"] == 1
    assert bubblewrap.described["waiting"] == 0


CONTROLS = [name for name, program in PROGRAMS.items() if program.control]


@pytest.fixture(scope="module")
def unconfined(tmp_path_factory):
    canaries = Canaries(tmp_path_factory.mktemp("unconfined"))
    try:
        programs = {name: canaries.fill(PROGRAMS[name].code) for name in CONTROLS}
        script = Path(__file__).with_name("unconfined.py")
        done = subprocess.run(
            [sys.executable, str(script)],
            input=json.dumps(programs),
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        return json.loads(done.stdout), canaries.harm()
    finally:
        canaries.close()


@pytest.mark.parametrize("name", CONTROLS)
def test_the_probe_works_outside(name, unconfined):
    """A probe that found nothing anywhere would prove nothing."""
    assert "ESCAPED" in unconfined[0][name]


def test_the_canaries_sing_outside(unconfined):
    assert {harm.split()[0] + " " + harm.split()[1] for harm in unconfined[1]} >= {"a file", "a socket"}


def test_the_corpus_is_large_enough():
    assert len(PROGRAMS) >= 120
    assert {"files", "network", "processes", "privileges", "limits", "python"} == {
        p.category for p in PROGRAMS.values()
    }


@pytest.mark.anyio
async def test_limits_are_what_stops_them():
    """The control of the limits: with wide ones, the same programs go on."""
    need_bubblewrap()
    wide = Limits(wall_seconds=30, cpu_seconds=30, memory_bytes=1 << 30, output_bytes=1 << 20, file_bytes=8 << 20)
    narrow = Limits(wall_seconds=0.5, cpu_seconds=30, memory_bytes=64 << 20, output_bytes=1000, file_bytes=1 << 20)
    programs = {
        "timeout": "import time\ntime.sleep(0.7)",
        "memory": "x = bytearray(200 << 20)",
        "output": "print('a' * 2000)",
        "error": "for i in range(2): open(str(i), 'wb').write(bytes(600_000))",  # no space left
    }
    with BubblewrapSandbox(wide, concurrency=2) as roomy, BubblewrapSandbox(narrow, concurrency=2) as tight:
        for outcome, code in programs.items():
            assert (await roomy.open().run(code)).outcome == "ok"
            stopped = await tight.open().run(code)
            assert stopped.outcome == outcome


@pytest.mark.anyio
async def test_processor_time_is_limited_apart_from_time():
    need_bubblewrap()
    limits = Limits(wall_seconds=60, cpu_seconds=0.3)
    with BubblewrapSandbox(limits, concurrency=1) as sandbox:
        session = sandbox.open()
        assert (await session.run("while True: pass")).outcome == "cpu"
        assert (await session.run("import time\ntime.sleep(0.6)")).outcome == "ok"


def test_nothing_outlives_the_sandbox():
    """Processes, open files and mounts are gone when it closes."""
    need_bubblewrap()
    files, others = set(os.listdir("/proc/self/fd")), _descendants(os.getpid())
    sandbox = BubblewrapSandbox(Limits(wall_seconds=2, cpu_seconds=2), concurrency=2)
    asyncio.run(sandbox.open().run("x = 1"))
    mine = {pid: line for pid, line in _descendants(os.getpid()).items() if pid not in others}
    assert any("guest.py" in line for line in mine.values())
    sandbox.close()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and any(_alive(pid) for pid in mine):
        time.sleep(0.02)
    assert not [pid for pid in mine if _alive(pid)]
    assert set(os.listdir("/proc/self/fd")) <= files


def test_the_jail_ends_with_its_supervisor():
    """Even if the supervisor is killed, without a chance to tidy up."""
    need_bubblewrap()
    sandbox = BubblewrapSandbox(Limits(wall_seconds=2, cpu_seconds=2), concurrency=2)
    asyncio.run(sandbox.open().run("x = 1"))
    mine = _descendants(sandbox.supervisor_pid)
    assert any("guest.py" in line for line in mine.values())
    os.kill(sandbox.supervisor_pid, 9)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and any("guest.py" in _command(pid) for pid in mine):
        time.sleep(0.02)
    assert not [pid for pid in mine if "guest.py" in _command(pid)]
    sandbox.close()


def _descendants(pid: int) -> dict[int, str]:
    found = {}
    try:
        children = [
            c
            for task in os.listdir(f"/proc/{pid}/task")
            for c in Path(f"/proc/{pid}/task/{task}/children").read_text().split()
        ]
    except OSError:
        return found
    for child in map(int, children):
        found[child] = _command(child)
        found |= _descendants(child)
    return found


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def _alive(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
