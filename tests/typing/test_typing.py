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
# what is wrong in others' annotations: (pyright's rule, message)
OTHERS = (
    # trl offers these names at its top and documents them there, but its `__init__` re-exports them without `as`
    ("reportPrivateImportUsage", re.compile(r'"\w+" is not exported from module "trl"')),
    # geoopt takes it in `__new__`, while pyright reads the `__init__` that torch's Parameter has
    ("reportCallIssue", re.compile(r'No parameter named "manifold"')),
)


def snippets():
    """(page, line, code) of each snippet, those that are not run too: types are all that is checked of them."""
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = page.read_text(encoding="utf-8")
        for found in BLOCK.finditer(text):
            yield page, text[: found.start(1)].count("\n"), found[1]


def modules():
    """(name, code): README's snippets alone, a page's in one module, in order, as they are run.

    Blank lines stand where the page has text, so that a message names the page's own line.
    """
    pages = {}
    for page, line, code in snippets():
        name = page.stem.replace("-", "_").lower()
        if page.stem == "README":
            name = f"{name}_{line}"
        before = pages.get(name, "")
        pages[name] = before + "\n" * (line - before.count("\n")) + code
    return pages.items()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("typing")
    for name, code in modules():
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
    assert sum(1 for page, *_ in snippets() if page.stem == "README") >= 2
    assert sum(1 for _ in snippets()) >= 10


@pytest.mark.timeout(400)
def test_mypy_strict(written):
    pytest.importorskip("mypy")
    (written / "mypy.ini").write_text(
        "[mypy]\nstrict = true\nignore_missing_imports = true\n"
        "allow_redefinition = true\n"  # a page uses a name again for the next snippet's
        "untyped_calls_exclude = torch\n"  # Tensor.backward has no annotations
        "[mypy-trl.*]\nimplicit_reexport = true\n"  # see OTHERS
        "[mypy-lapha.*]\nignore_errors = true\n"
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
    found = [e for e in found if not any(e.get("rule") == rule and text.match(e["message"]) for rule, text in OTHERS)]
    check([(Path(e["file"]).name, e["range"]["start"]["line"] + 1, e["message"]) for e in found])
