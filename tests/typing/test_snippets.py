"""What users write must type-check as they have it: README's and the docs' Python, under mypy --strict and pyright."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "docs/shaping.md")
CHECKERS = {
    "mypy": ("mypy", "--strict", "--follow-imports=silent", "--cache-dir", str(ROOT / ".mypy_cache" / "snippets")),
    "pyright": ("pyright",),
}


def snippets(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


def run_checker(name: str, files: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "MYPYPATH": str(ROOT / "src"), "PYTHONPATH": str(ROOT / "src")}
    extra = ["--config-file", str(folder / "mypy.ini")] if name == "mypy" else ["--pythonpath", sys.executable]
    (folder / "mypy.ini").write_text("[mypy]\nignore_missing_imports = True\n")
    command = [sys.executable, "-m", *CHECKERS[name], *extra, *files]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=environment)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(CHECKERS))
def test_snippets_type_check(name, tmp_path):
    files = []
    for page in PAGES:
        for number, code in enumerate(snippets(page)):
            file = tmp_path / f"{Path(page).stem.lower()}_{number}.py"
            file.write_text(code)
            files.append(str(file))
    assert len(files) >= 4
    done = run_checker(name, files, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    wrong = tmp_path / "wrong.py"
    wrong.write_text("import lapha\n\nlapha.potential(3)\n")
    assert run_checker(name, [str(wrong)], tmp_path).returncode == 1, "a wrong call went unnoticed"
