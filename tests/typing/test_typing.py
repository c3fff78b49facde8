"""What a user's type checker says: of README's and docs' snippets, of ordinary code, and of mistakes."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
# snippets that continue another one, or show one call: their names come from the text around them
WHOLE = re.compile(r"^(import|from) ", re.MULTILINE)


def snippets():
    """(page, number, code) of each snippet that imports what it uses."""
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for number, code in enumerate(BLOCK.findall(page.read_text(encoding="utf-8"))):
            if WHOLE.match(code):
                yield page.stem, number, code


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("typing")
    for page, number, code in snippets():
        name = f"{page.replace('-', '_').lower()}_{number}"
        # a snippet's own top-level await is allowed in a notebook
        if re.search(r"^(async for|async with|.*\bawait\b)", code, re.MULTILINE):
            code = "async def main() -> None:\n" + "".join(f"    {line}\n" for line in code.splitlines())
        (folder / f"{name}.py").write_text(code, encoding="utf-8")
    for name in ("usage", "mistakes"):
        (folder / f"{name}.py").write_text((HERE / f"{name}.py").read_text(encoding="utf-8"), encoding="utf-8")
    return folder


def expected_mistakes():
    lines = (HERE / "mistakes.py").read_text(encoding="utf-8").splitlines()
    return {number for number, line in enumerate(lines, 1) if line.endswith("# error")}


def check(found):
    """`found`: (file, line, message); right where the mistakes are found and nothing else is."""
    assert {line for file, line, _ in found if file == "mistakes.py"} == expected_mistakes()
    others = [entry for entry in found if entry[0] != "mistakes.py"]
    assert not others, "\n".join(f"{file}:{line}: {message}" for file, line, message in others)


def test_there_are_snippets():
    assert sum(1 for page, *_ in snippets() if page == "README") >= 2
    assert sum(1 for _ in snippets()) >= 10


@pytest.mark.timeout(400)
def test_mypy_strict(written):
    pytest.importorskip("mypy")
    (written / "mypy.ini").write_text(
        "[mypy]\nstrict = true\nignore_missing_imports = true\n[mypy-lapha.*]\nignore_errors = true\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "--no-error-summary", *sorted(p.name for p in written.glob("*.py"))],
        capture_output=True, text=True, check=False, cwd=written,
        env={"MYPYPATH": str(ROOT / "src"), "PATH": "/usr/bin:/bin", "MYPY_CACHE_DIR": str(ROOT / ".mypy_cache" / "typing")},
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr
    lines = [re.match(r"(\S+?):(\d+): error: (.*)", line) for line in done.stdout.splitlines()]
    check([(found[1], int(found[2]), found[3]) for found in lines if found])


@pytest.mark.timeout(400)
def test_pyright(written):
    pytest.importorskip("pyright")
    (written / "pyrightconfig.json").write_text(
        json.dumps({"extraPaths": [str(ROOT / "src")], "typeCheckingMode": "standard", "reportMissingImports": False,
                    "reportMissingModuleSource": False, "pythonVersion": "3.11"})
    )  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, "-p", "."],
        capture_output=True, text=True, check=False, cwd=written,
    )  # fmt: skip
    report = json.loads(done.stdout[done.stdout.index("{") :])
    found = [entry for entry in report["generalDiagnostics"] if entry["severity"] == "error"]
    check([(Path(e["file"]).name, e["range"]["start"]["line"] + 1, e["message"]) for e in found])
