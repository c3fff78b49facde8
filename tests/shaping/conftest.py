import json
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent.parent / "golden"


@pytest.fixture(scope="session")
def line_tree() -> dict:
    """Seven nodes on a line through the origin, every quantity worked out by hand."""
    return json.loads((GOLDEN / "shaping_line.json").read_text())
