"""Kills evaluations again and again and goes on with each: ``python kill_often.py FOLDER KILLS``.

Runs go into FOLDER/0, FOLDER/1, … until KILLS kills have happened; the last run is then finished. Prints, as JSON, how many
outcomes had been written at each kill. A process of its own with a single thread, so that each try is a fork.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from killable_run import evaluate


def attempt(folder, outcomes=None, seconds=0.0):
    """Evaluate in a fork, killed so many seconds after so many more outcomes; the exit code (−9 if killed)."""
    pid = os.fork()
    if pid == 0:
        evaluate(folder, latency=0.01)  # what it raises ends the fork with a traceback and status 1
        os._exit(0)
    enough = None if outcomes is None else written(folder) + outcomes
    deadline = None
    while (ended := os.waitpid(pid, os.WNOHANG)) == (0, 0):
        if deadline is None and enough is not None and written(folder) >= enough:
            deadline = time.monotonic() + seconds
        if deadline is not None and time.monotonic() >= deadline:
            os.kill(pid, signal.SIGKILL)
            ended = os.waitpid(pid, 0)
            break
        time.sleep(0.0005)
    return os.waitstatus_to_exitcode(ended[1])


def written(folder):
    path = Path(folder) / "rollouts.jsonl"
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def main(folder, kills):
    moment, number, found = random.Random(0), 0, []
    while len(found) < kills:
        status = attempt(folder / str(number), moment.randint(0, 5), moment.uniform(0, 0.03))
        if status == -signal.SIGKILL:
            found.append(written(folder / str(number)))
        elif status == 0:
            number += 1
        else:
            sys.exit(f"run {number} ended with {status} after {len(found)} kills")
    if attempt(folder / str(number)) != 0:
        sys.exit(f"run {number} could not be finished")
    print(json.dumps(found))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), int(sys.argv[2]))
