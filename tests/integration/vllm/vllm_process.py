"""vLLM servers as processes of their own, started and stopped by their process ids."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import httpx

POOLING = ("--runner", "pooling", "--convert", "embed")
POOLER = '{"pooling_type":"MEAN","use_activation":false}'
IN_PROCESS = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
START_TIMEOUT_S = 1200


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment():
    """The environment that vLLM's processes run in: small, offline, and not bound to one core."""
    return os.environ | {
        "VLLM_CPU_KVCACHE_SPACE": "2",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }


def run_script(python, script: Path, *arguments, extra=None, timeout=1500):
    """Run a script to its end in a process group of its own; returns (exit status, output). Nothing of it stays behind."""
    process = subprocess.Popen(
        [str(python), str(script), *map(str, arguments)], env=environment() | (extra or {}), start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=timeout)
        return process.returncode, output
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


class VLLMServer:
    """One server on loopback, serving `model` under the name "tiny"."""

    def __init__(self, python, model: Path, log: Path, pooling=False):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = log
        # the console script looks for a distribution named "vllm", which the CPU wheel is not
        self.command = [
            str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(model),
            "--served-model-name", "tiny", "--host", "127.0.0.1", "--port", str(self.port), "--enforce-eager",
            "--dtype", "float32", "--max-num-seqs", "256",
        ]  # fmt: skip
        # vLLM 0.32 on a CPU dies on a prompt that enters in parts and whose request has a seed: "CPU Generator does not
        # use offset"
        self.command.append("--no-enable-chunked-prefill")
        # a worker process of its own spins while it waits, which takes a core from everything else; IN_PROCESS allows this
        self.command += ["--distributed-executor-backend", "uni"]
        if pooling:
            self.command += [*POOLING, "--pooler-config", POOLER]
        self.process = None

    def start(self):
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, stdout=log, stderr=log, env=environment() | IN_PROCESS, start_new_session=True
            )

    def wait(self):
        """Block until it answers; the end of its log is in the error if it does not."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            try:
                if httpx.get(self.url + "/health", timeout=2).status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.5)
        tail = self.log.read_text(errors="replace")[-3000:]
        raise RuntimeError(f"the vLLM server on {self.url} did not start; its log ends with:\n{tail}")

    def kill(self, how=signal.SIGKILL):
        """End the server and the engine process that it started (they share the group that `start` made)."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, how)
        self.process.wait(timeout=60)
        self.process = None
