from __future__ import annotations

import pytest

from .canaries import Canaries


@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio"


@pytest.fixture
def canaries(tmp_path):
    made = Canaries(tmp_path)
    yield made
    made.close()
