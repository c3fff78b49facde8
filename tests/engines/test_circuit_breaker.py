"""The breaker's states, on a clock that the test turns."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapha.engines.breaker import CircuitBreaker


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def make(**arguments):
    clock = Clock()
    return CircuitBreaker(
        clock=clock, **({"failure_threshold": 3, "recovery_s": 2.0, "longest_s": 5.0} | arguments)
    ), clock


def fail(breaker, times=1):
    for _ in range(times):
        breaker.sent()
        breaker.failed()


def test_opens_after_failures_in_a_row_only():
    breaker, _ = make()
    fail(breaker, 2)
    breaker.succeeded()
    fail(breaker, 2)
    assert breaker.state == "closed"
    fail(breaker)
    assert breaker.state == "open"
    assert not breaker.passes
    assert breaker.wait_s == 2.0


def test_one_trial_when_half_open():
    breaker, clock = make()
    fail(breaker, 3)
    clock.now = 2.0
    assert breaker.passes
    breaker.sent()
    assert not breaker.passes
    assert 0 < breaker.wait_s <= 0.1
    breaker.succeeded()
    assert breaker.state == "closed"
    assert breaker.passes


def test_failed_trials_wait_twice_as_long_up_to_a_limit():
    breaker, clock = make()
    fail(breaker, 3)
    waits = []
    for _ in range(3):
        clock.now += breaker.wait_s
        fail(breaker)
        waits.append(breaker.wait_s)
    assert waits == [4.0, 5.0, 5.0]
    assert breaker.opened == 4


def test_late_failures_of_an_open_breaker_do_not_lengthen_it():
    breaker, _ = make()
    for _ in range(8):  # eight requests were on their way when the server died
        breaker.sent()
    for _ in range(8):
        breaker.failed()
    assert breaker.wait_s == 2.0
    assert breaker.opened == 1


def test_an_abandoned_trial_lets_another_one_go():
    breaker, clock = make()
    fail(breaker, 3)
    clock.now = 2.0
    breaker.sent()
    breaker.abandoned()
    assert breaker.passes


@given(st.lists(st.sampled_from(["sent", "succeeded", "failed", "abandoned", "wait"]), max_size=60))
def test_never_stuck(events):
    """Whatever happens, time alone makes it pass again, once no trial is under way."""
    breaker, clock = make()
    for event in events:
        if event == "wait":
            clock.now += 1.0
        else:
            getattr(breaker, event)()
    breaker.abandoned()
    assert breaker.wait_s <= 5.0
    clock.now += breaker.wait_s
    assert breaker.passes


@pytest.mark.parametrize(
    ("arguments", "name"), [({"failure_threshold": 0}, "failure_threshold"), ({"recovery_s": 0}, "recovery_s")]
)
def test_bad_arguments(arguments, name):
    with pytest.raises(ValueError, match=f"^{name}: expected"):
        make(**arguments)
