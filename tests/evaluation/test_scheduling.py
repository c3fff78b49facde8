"""The graders' schedule with workers that answer, are slow, hang or die, under a clock of its own: no process, no waiting."""

import heapq
import random
from collections import deque

import pytest

from lapha.evaluation.grading.scheduling import IN_FLIGHT, Schedule

SCHEDULES = 10_000
TIMEOUT = 10.0


class FakeWorker:
    """Does its requests in order. What becomes of one is `fate`: seconds, ``"hang"`` or ``"die"``."""

    def __init__(self, world, starts_in, dies_idle):
        self.world, self.ready, self.held, self.since = world, False, deque(), world.time
        self.stopped = self.dead = False
        self.replies = []
        self.generation = 0
        world.at(starts_in, self.start)
        if dies_idle is not None:
            world.at(dies_idle, self.die_if_idle)

    def start(self):
        if not self.stopped:
            self.ready, self.since = True, self.world.time
            self.world.stirred.append(self)

    def die_if_idle(self):
        if not self.stopped and self.ready and not self.held:
            self.die()

    def die(self):
        if not self.stopped:
            self.dead = True
            self.world.stirred.append(self)

    def send(self, identity):
        assert not self.stopped, "a stopped worker was given a request"
        assert identity not in self.held, "a worker was given a request that it holds"
        assert len(self.held) < IN_FLIGHT
        if self.dead or self.world.rng.random() < 0.02:
            return False
        if not self.held:
            self.since = self.world.time
        self.held.append(identity)
        if len(self.held) == 1:
            self.begin()
        return True

    def begin(self):
        fate = self.world.fate(self, self.held[0])
        if fate == "die":
            self.world.at(self.world.rng.random() * 3, self.die)
        elif fate != "hang":
            self.world.at(fate, lambda: self.answer(fate))

    def answer(self, fate):
        if self.stopped or self.dead:
            return
        self.replies.append([self.held[0], True, "math", ""])
        self.world.stirred.append(self)
        # its next one begins at once, as in a process; it is held until the reply is received
        self.pending = True

    def receive(self):
        if self.replies:
            out, self.replies = self.replies, []
            for identity, *_ in out:
                self.held.remove(identity)
            self.since = self.world.time
            if self.held:
                self.begin()
            return out
        return None if self.dead else []

    def stop(self):
        assert not self.stopped
        self.stopped = True


class World:
    """Workers, a clock, and what happens when."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.time, self.events, self.number, self.stirred = 0.0, [], 0, []
        self.count = self.rng.randint(1, 3)
        self.timeout = self.rng.choice((0.5, 2.0, TIMEOUT))
        self.start_seconds = 60.0
        self.deaths = 0
        self.workers = []
        size = self.rng.randint(1, 14)
        kinds = self.rng.choices(("quick", "slow", "hang", "die", "moody"), self.rng.choices(range(1, 6), k=5), k=size)
        self.kinds = dict(enumerate(kinds))

    def fate(self, worker, identity):
        kind = self.kinds[identity]
        if kind == "moody":  # another time it may go otherwise
            kind = self.rng.choice(("quick", "slow", "hang", "die"))
        if kind == "quick":
            return self.rng.random() * 0.01
        return self.rng.choice((1.0, 1.0001, 1.5, 3.0, self.timeout - 1e-3)) if kind == "slow" else kind

    def at(self, seconds, action):
        self.number += 1
        heapq.heappush(self.events, (self.time + max(0.0, seconds), self.number, action))

    def recruit(self):
        dies_idle = self.rng.random() * 5 if self.deaths < 5 and self.rng.random() < 0.1 else None
        self.deaths += dies_idle is not None
        self.workers.append(FakeWorker(self, self.rng.choice((0.0, 0.3, 5.0)), dies_idle))
        return self.workers[-1]

    def wait(self, workers, seconds):
        assert self.number < 20_000, "it goes on for ever"
        end = self.time + seconds
        while not self.stirred and self.events and self.events[0][0] <= end:
            self.time, _, action = heapq.heappop(self.events)
            action()
        if not self.stirred:
            assert self.events or seconds < 100, "nothing will happen any more"
            self.time = end
            self.number += 1
        out = [worker for worker in dict.fromkeys(self.stirred) if worker in workers]
        self.stirred = []
        return out

    def now(self):
        return self.time


class Checked(Schedule):
    """Asserts on every turn that each unfinished request is queued or held by a live worker."""

    def _feed(self):
        super()._feed()
        held = {identity for worker in self.active for identity in worker.held}
        queue = set(self._queue)
        assert queue == self._queued
        assert len(self._queue) == len(queue), "queued twice"
        for identity, owners in self._owners.items():
            holders = sum(identity in worker.held for worker in self.active)
            assert owners == holders + (identity in queue), (identity, owners, holders)
            assert identity in self.verdicts or identity in held or identity in queue, f"nobody has {identity}"
        assert len(self.active) <= 2 * self.workers.count


def run(seed, kind=Checked):
    world = World(seed)
    said = []
    schedule = kind(world, range(len(world.kinds)), lambda identity, verdict: said.append(identity))
    verdicts = schedule.run()
    assert sorted(verdicts) == sorted(said) == sorted(world.kinds), "one verdict each"
    assert schedule.rescued == 0
    for identity, verdict in verdicts.items():
        kind = world.kinds[identity]
        if kind == "quick":
            assert verdict.correct, (identity, verdict)
        if kind in ("hang", "die"):
            assert verdict.correct is None
    assert all(worker.stopped or worker in schedule.active for worker in world.workers)
    return world, schedule


@pytest.mark.parametrize("part", range(10))
def test_every_schedule_ends_with_one_verdict_each(part):
    for seed in range(part * SCHEDULES // 10, (part + 1) * SCHEDULES // 10):
        run(seed)


def test_the_time_is_that_of_the_hangs_shared_by_the_workers():
    for seed in range(300):
        world, _ = run(seed)
        hangs = sum(kind in ("hang", "die", "moody", "slow") for kind in world.kinds.values())
        assert world.time <= (2 + hangs) * (world.timeout + 1.1) + 60


def test_what_nobody_owns_is_queued_again_and_logged(caplog):
    class Forgetful(Schedule):
        lost = 0

        def _enqueue(self, identities):
            if len(identities) > 1 and not self.lost:  # once, what a worker had is forgotten
                Forgetful.lost += 1
                return
            super()._enqueue(identities)

    for seed in range(2000):
        Forgetful.lost = 0
        world = World(seed)
        schedule = Forgetful(world, range(len(world.kinds)))
        assert len(schedule.run()) == len(world.kinds)
        if schedule.rescued:
            assert "had no owner" in caplog.text
            return
    raise AssertionError("nothing was ever forgotten")


def test_workers_that_keep_ending_are_an_error():
    world = World(1)
    world.recruit = lambda: FakeWorker(world, 0.0, 0.0)
    original = FakeWorker.send
    try:
        FakeWorker.send = lambda self, identity: False
        with pytest.raises(RuntimeError, match="keep ending"):
            Schedule(world, [0]).run()
    finally:
        FakeWorker.send = original
