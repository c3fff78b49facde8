"""Real vLLM servers for these tests. They run where they are asked for: ``pytest -m vllm`` (make test-vllm)."""

import os
import shutil
import signal
from pathlib import Path

import pytest
from vllm_process import VLLMServer

ROOT = Path(__file__).parents[3]


def pytest_collection_modifyitems(config, items):
    asked_for = "vllm" in config.getoption("markexpr", "")
    for item in items:
        if Path(item.fspath).parent != Path(__file__).parent:
            continue
        item.add_marker(pytest.mark.vllm)
        item.add_marker(pytest.mark.timeout(3000))
        if not asked_for:
            item.add_marker(pytest.mark.skip(reason="needs vLLM servers: make test-vllm"))


@pytest.fixture(scope="session")
def vllm_python():
    """Interpreter of the environment that scripts/vllm_env.sh builds."""
    python = Path(os.environ.get("LAPHA_VLLM_PYTHON", ROOT / ".venv-vllm" / "bin" / "python"))
    if not python.exists():
        raise RuntimeError(f"{python} is missing: run scripts/vllm_env.sh, or make test-vllm")
    return python


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    """The tiny policy's folder as it is, value head and all."""
    from lapha.tiny import tiny_path

    return shutil.copytree(tiny_path(), tmp_path_factory.mktemp("served"), dirs_exist_ok=True)


@pytest.fixture(scope="session")
def servers(vllm_python, model_folder, tmp_path_factory):
    """Two generation servers and a pooling server, started together."""
    logs = tmp_path_factory.mktemp("logs")
    started = {
        name: VLLMServer(vllm_python, model_folder, logs / f"{name}.log", pooling=name == "pooling")
        for name in ("first", "second", "pooling")
    }
    try:
        for server in started.values():
            server.start()
        for server in started.values():
            server.wait()
        yield started
    finally:
        for server in started.values():
            server.kill(signal.SIGTERM)


@pytest.fixture(scope="session")
def tiny():
    """(model, tokenizer, value head) in this process."""
    from lapha.tiny import load_tiny

    return load_tiny()
