"""Seven nodes on a line through the origin, every quantity worked out by hand."""

import json
from pathlib import Path

LINE_TREE: dict = json.loads((Path(__file__).parent.parent / "golden" / "shaping_line.json").read_text())
