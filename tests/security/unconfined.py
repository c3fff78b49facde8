"""Runs the corpus' harmless probes without a sandbox: there, each must get what it wants.

Reads ``{name: code}`` as JSON from standard input, and writes ``{name: output}``. Each program runs in a fork with a
folder of its own. With the argument ``pairs``: ``{name: [left, right, before]}``, where `left` and `right` run at the
same time in forks of a process that has run `before`, and the output is that of both.
"""

import itertools
import json
import os
import signal
import sys
import tempfile
import time

SECONDS = 15
AT_ONCE = 5


def execute(code, names):
    exec(compile(code, "<step>", "exec"), names)


class Started:
    """Programs that run in a process group of their own, after and beside one another."""

    def __init__(self, programs, before=""):
        self.folder, self.output = tempfile.TemporaryDirectory(), os.memfd_create("output")
        self.deadline = time.monotonic() + SECONDS
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            os.chdir(self.folder.name)
            for stream in (1, 2):
                os.dup2(self.output, stream)
            names = {"__name__": "__main__", "__builtins__": __builtins__}
            execute(before, names)
            for program in programs[1:]:
                self.in_a_fork(program, names)
            try:
                execute(programs[0], names)
            finally:
                sys.stdout.flush()
                self.wait_for_forks(len(programs) - 1)
                os._exit(0)

    def in_a_fork(self, program, names):
        if os.fork() == 0:
            try:
                execute(program, names)
            finally:
                sys.stdout.flush()
                os._exit(0)

    def wait_for_forks(self, count):
        for _ in range(count):
            try:
                os.wait()
            except OSError:
                return

    def result(self):
        while os.waitpid(self.pid, os.WNOHANG)[0] == 0:
            if time.monotonic() > self.deadline:
                os.killpg(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                break
            time.sleep(0.005)
        said = os.pread(self.output, 1 << 20, 0).decode("utf-8", "replace")
        self.folder.cleanup()
        os.close(self.output)
        return said


def run(code):
    return Started([code]).result()


def run_pairs(pairs):
    found, left = {}, iter(pairs.items())
    while batch := list(itertools.islice(left, AT_ONCE)):
        started = {name: Started(programs[:2], programs[2]) for name, programs in batch}
        found |= {name: job.result() for name, job in started.items()}
    return found


if __name__ == "__main__":
    sys.path.insert(0, os.getcwd())
    given = json.load(sys.stdin)
    json.dump(run_pairs(given) if sys.argv[1:] else {name: run(code) for name, code in given.items()}, sys.stdout)
