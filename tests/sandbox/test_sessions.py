"""What every sandbox promises, asked of each."""

from __future__ import annotations

import asyncio
import gc

import pytest

from lapha.sandbox import Sandbox, SandboxError, SandboxSession

pytestmark = pytest.mark.anyio


@pytest.fixture
def session(sandbox):
    opened = sandbox.open()
    yield opened
    opened.close()


def test_the_protocol_is_kept(sandbox, session):
    assert isinstance(sandbox, Sandbox)
    assert isinstance(session, SandboxSession)


async def test_the_last_lines_value_and_the_output_come_back(session):
    result = await session.run("print('a')\nprint('b')\n1 + 1")
    assert (result.outcome, result.output, result.value, result.error) == ("ok", "a\nb\n", "2", None)
    assert 0 < result.seconds < 2
    assert result.message() == "a\nb\n2"


async def test_statements_have_no_value(session):
    result = await session.run("x = 3")
    assert (result.outcome, result.output, result.value) == ("ok", "", None)
    assert result.message() == "(no output)"


async def test_variables_functions_and_imports_stay(session):
    await session.run("import math\nx = 2\ndef area(r): return math.pi * r ** x")
    assert (await session.run("round(area(1), 3)")).value == "3.142"


async def test_an_error_is_the_agents_to_read_and_what_came_before_it_stays(session):
    result = await session.run("x = 1\nprint('so far')\ny = 1 / 0\nx = 2")
    assert (result.outcome, result.output, result.breach) == ("error", "so far\n", False)
    assert "line 3" in result.error
    assert "ZeroDivisionError: division by zero" in result.error
    assert (await session.run("x")).value == "1"


@pytest.mark.parametrize("code", ["x = (", "def f(:", "  x = 1\n y = 2", "x = 1\x00", "'\\", "\ufeff$"])
async def test_code_that_is_no_python_is_an_error(session, code):
    result = await session.run(code)
    assert result.outcome == "error"
    assert result.error


async def test_a_fork_is_independent_of_its_parent_and_of_its_siblings(session):
    await session.run("x = [1]")
    left, right = session.fork(), session.fork()
    await asyncio.gather(left.run("x.append(2)"), right.run("x.append(3)"), session.run("x.append(4)"))
    results = await asyncio.gather(left.run("x"), right.run("x"), session.run("x"))
    assert [result.value for result in results] == ["[1, 2]", "[1, 3]", "[1, 4]"]


async def test_forks_of_forks(session):
    branches = [session]
    for depth in range(8):
        await branches[-1].run(f"d{depth} = {depth}")
        branches.append(branches[-1].fork())
    assert (await branches[-1].run("d0 + d7")).value == "7"
    assert (await branches[3].run("d3")).outcome == "ok"
    assert (await branches[3].run("d4")).outcome == "error"


async def test_a_fork_has_the_state_after_the_runs_asked_for_so_far(session):
    running = asyncio.create_task(session.run("x = sum(range(10**5))"))
    await asyncio.sleep(0)
    child = session.fork()
    after = asyncio.create_task(session.run("x = 0"))
    assert (await child.run("x")).value == "4999950000"
    await asyncio.gather(running, after)
    assert (await session.run("x")).value == "0"


async def test_runs_of_a_session_follow_one_another(session):
    await session.run("x = []")
    await asyncio.gather(*(session.run(f"x.append({i})") for i in range(20)))
    assert (await session.run("x")).value == str(list(range(20)))


async def test_a_fork_outlives_its_parent(session):
    await session.run("x = 5")
    child = session.fork()
    session.close()
    assert (await child.run("x")).value == "5"
    child.close()


async def test_sessions_know_nothing_of_each_other(sandbox, session):
    await session.run("x = 5")
    other = sandbox.open()
    assert "NameError" in (await other.run("x")).error
    other.close()


async def test_a_run_that_breaks_a_limit_is_undone(session):
    await session.run("x = 1")
    child = session.fork()
    result = await session.run("x = 2\nprint('so far')\nwhile True: pass")
    assert result.outcome in ("timeout", "cpu")
    assert result.breach
    assert result.error.startswith("Stopped: ")
    assert result.error.endswith("The session is as it was before this run.")
    assert (await session.run("x")).value == "1"
    assert (await child.run("x")).value == "1"


async def test_too_much_memory_is_undone(session):
    await session.run("x = 1")
    result = await session.run("x = 2\ny = [0] * (1 << 27)")
    assert result.outcome == "memory"
    assert (await session.run("x")).value == "1"


async def test_too_much_output_is_undone_but_its_beginning_shown(session):
    result = await session.run("print('begin')\nfor i in range(10**6): print('x' * 100)")
    assert result.outcome == "output"
    assert result.output.startswith("begin\nxxx")
    assert len(result.output) <= 10_000


async def test_a_giant_value_is_cut(session):
    result = await session.run("'x' * 100_000")
    assert result.outcome == "ok"
    assert len(result.value) <= 10_001
    assert result.value.endswith("…")


async def test_text_is_cut_by_bytes(session):
    result = await session.run("'漢' * 9_000")
    assert len(result.value.encode()) <= 10_000 + len("…".encode())
    assert result.value.endswith("漢…")
    printed = await session.run("print('漢' * 9_000)")
    assert printed.outcome == "output"
    assert len(printed.output.encode()) <= 10_000
    assert set(printed.output) == {"漢"}


async def test_code_that_is_too_long_is_refused(session):
    result = await session.run("x = 1\n" * 10_000)
    assert result.outcome == "refused"
    assert result.error == "code: expected at most 20000 bytes, got 60000"


async def test_a_surrogate_is_refused(session):
    assert (await session.run("'\ud800'")).outcome == "refused"


async def test_text_of_all_kinds_survives(session):
    result = await session.run("print('é漢😀\\t\\x00')\n'ß'")
    assert (result.output, result.value) == ("é漢😀\t\x00\n", "'ß'")


SURROGATES = {
    "a value": "'a' + chr(0xD800)",
    "a value's own text": "class A:\n    def __repr__(self):\n        return chr(0xDFFF)\nA()",
    "output": "print('a' + chr(0xDC80))",
    "an error": "raise ValueError('a' + chr(0xD800))",
    "an error's name": "raise type('E' + chr(0xD800), (Exception,), {})",
    "an error's own text": "class E(Exception):\n    def __str__(self):\n        return chr(0xDC80)\nraise E",
}


@pytest.mark.parametrize("where", SURROGATES)
async def test_what_utf8_cannot_hold_is_written_out_in_every_field(session, where):
    result = await session.run(SURROGATES[where])
    assert result.outcome in ("ok", "error")
    f"{result.output}{result.value}{result.error}".encode()
    assert (await session.run("1 + 1")).value == "2"


async def test_the_same_seed_everywhere(sandbox):
    first, second = sandbox.open(), sandbox.open()
    code = "import random\n[random.random() for _ in range(3)]"
    assert (await first.run(code)).value == (await second.run(code)).value
    assert (await first.run(code)).value != (await second.fork().run("[random.random() for _ in range(9)]")).value


async def test_a_closed_session_says_so(sandbox):
    session = sandbox.open()
    session.close()
    session.close()
    with pytest.raises(SandboxError, match="closed"):
        session.fork()
    with pytest.raises(SandboxError, match="closed"):
        await session.run("1")


async def test_a_cancelled_run_leaves_the_session_usable(session):
    await session.run("x = 1")
    running = asyncio.create_task(session.run("for i in range(10**7): pass"))
    await asyncio.sleep(0.02)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (await session.run("x")).value == "1"


def test_one_sandbox_serves_several_event_loops(sandbox):
    session = sandbox.open()
    assert asyncio.run(session.run("x = 7")).ok
    assert asyncio.run(session.fork().run("x")).value == "7"


async def test_many_branches_at_once_are_all_independent(session):
    await session.run("x = 1000")
    branches = [session.fork() for _ in range(30)]
    await asyncio.gather(*(branch.run(f"x += {i}") for i, branch in enumerate(branches)))
    results = await asyncio.gather(*(branch.run("x") for branch in branches))
    assert [result.value for result in results] == [str(1000 + i) for i in range(30)]


async def test_running_does_not_stall_the_event_loop(session):
    running = asyncio.create_task(session.run("for i in range(3 * 10**6): pass"))
    ticks = 0
    while not running.done():
        await asyncio.sleep(0.002)
        ticks += 1
    assert ticks >= 5


async def test_describing_counts_outcomes(sandbox, session):
    if sandbox.name == "remote":
        assert sandbox.describe()["servers"]
        return
    before = sandbox.describe()["counters"].get("error", 0)
    await session.run("1 / 0")
    assert sandbox.describe()["counters"]["error"] == before + 1
    gc.collect()
