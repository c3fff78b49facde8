"""The architecture's rules: who imports whom, what resolves, how long files are, what `import lapha` costs."""

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import lapha

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "lapha"
ROWS = [
    {"errors"},
    {"_checks", "_digests", "_imports", "_text"},
    {"_options"},
    {"types"},
    {"_http", "_identity", "_store", "_typed"},
    {"geometry", "tree"},
    {"kernels"},
    {"latent", "shaping", "pruning"},
    {"search", "agent", "sandbox"},
    {"engines", "viz"},
    {"integrations", "evaluation", "tiny"},
    {"config"},
    {"cli"},
]
ROW_OF = {package: row for row, packages in enumerate(ROWS) for package in packages}
# a package of row n imports only from rows above; these may not meet although the rows would allow it
FORBIDDEN = {("kernels", "tree")}
# optional dependencies and the packages that may import them at module level
OPTIONAL = {
    "transformers",
    "trl",
    "vllm",
    "deepspeed",
    "matplotlib",
    "triton",
    "datasets",
    "accelerate",
    "typer",
    "rich",
}
OPTIONAL |= {"fastapi", "uvicorn", "pydantic_monty", "math_verify", "jinja2", "httpx", "aiohttp", "tenacity", "peft"}


def sources():
    return sorted(SOURCE.rglob("*.py"))


def package_of(path):
    first = path.relative_to(SOURCE).parts[0]
    return first.removesuffix(".py")


def imported_modules(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module
            if node.module == "lapha":
                yield from (f"lapha.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_only_from_rows_above(path):
    package = package_of(path)
    if package in ("__init__", "__main__"):
        return
    assert package in ROW_OF, f"{package} has no row in the architecture"
    for module in imported_modules(path):
        parts = module.split(".")
        if parts[0] != "lapha" or len(parts) == 1 or parts[1] == package or parts[1] == "__version__":
            continue
        other = parts[1]
        assert other in ROW_OF, f"{path.name} imports unknown lapha.{other}"
        assert ROW_OF[other] < ROW_OF[package], (
            f"{package} (row {ROW_OF[package]}) imports {other} (row {ROW_OF[other]})"
        )
        assert (package, other) not in FORBIDDEN


def test_the_import_rule_can_fail(tmp_path):
    bad = tmp_path / "bad.py"
    bad.write_text("from lapha.cli import main\nfrom lapha import search\n")
    assert {"lapha.cli", "lapha.search"} <= set(imported_modules(bad))


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(SOURCE)))
def test_files_are_short(path):
    lines = len(path.read_text().splitlines())
    assert lines <= 400, f"{path} has {lines} lines"


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(SOURCE)))
def test_no_wholesale_except(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ExceptHandler):
            name = node.type.id if isinstance(node.type, ast.Name) else None
            assert node.type is not None, f"{path}:{node.lineno} catches everything"
            assert name != "BaseException", f"{path}:{node.lineno} catches everything"


@pytest.mark.parametrize("name", lapha.__all__)
def test_every_top_level_name_resolves(name):
    assert getattr(lapha, name) is not None


def module_names():
    names = []
    for module in pkgutil.walk_packages([str(SOURCE)], "lapha."):
        if module.name.endswith("__main__"):
            continue
        names.append(module.name)
    return names


def test_every_exported_name_resolves():
    missing = []
    for name in module_names():
        module = importlib.import_module(name)
        missing += [f"{name}.{export}" for export in getattr(module, "__all__", ()) if not hasattr(module, export)]
    assert not missing


# What is not installed is what no finder finds.
BLOCK = """
import sys
class Without:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in {blocked!r} else self.finder.find_spec(name, path, target)
    def __getattr__(self, name):
        return getattr(self.finder, name)
sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
"""


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_core_works_with_every_extra_absent():
    code = BLOCK.format(blocked=OPTIONAL) + (
        "import torch, lapha\n"
        "v = torch.randn(5, 8)\n"
        "points = lapha.PolarPoints.from_tangent(v)\n"
        "goal = torch.tensor([False, False, False, False, True])\n"
        "value = lapha.potential(points, goal=goal)\n"
        "reward = lapha.process_reward(value, torch.tensor([-1, 0, 0, 1, 1]))\n"
        "assert abs(float(value[4]) - 1) < 1e-6 and reward.shape == (5,)\n"
        "import lapha.search, lapha.engines, lapha.agent, lapha.sandbox, lapha.viz, lapha.latent, lapha.pruning\n"
        "import lapha.kernels, lapha.tiny, lapha.evaluation, lapha.integrations\n"
        "lapha.kernels.pairwise_dist(points, points)\n"
        "from lapha._imports import MissingExtraError\n"
        "try:\n"
        "    import lapha.integrations.trl\n"
        "except MissingExtraError as error:\n"
        "    assert 'pip install' in str(error) and 'lapha[trl]' in str(error)\n"
        "else:\n"
        "    raise SystemExit('a missing extra went unnoticed')\n"
        "loaded = {name.split('.')[0] for name in sys.modules} & " + repr(OPTIONAL - {"triton"}) + "\n"
        "assert not loaded, loaded\n"
    )
    done = run_python(code)
    assert done.returncode == 0, done.stderr


def test_import_brings_nothing_beside_torch():
    """What makes `import lapha` as quick as `import torch`: no third-party package that torch has not loaded."""
    code = (
        "import sys, torch\n"
        "before = {name.split('.')[0] for name in sys.modules}\n"
        "import lapha, lapha.geometry, lapha.shaping\n"
        "new = {name.split('.')[0] for name in sys.modules} - before - set(sys.stdlib_module_names)\n"
        "assert new == {'lapha'}, new\n"
    )
    done = run_python(code)
    assert done.returncode == 0, done.stderr


def test_nothing_but_the_product_is_spoken_of():
    pattern = re.compile(r"(?<![\w.])/(?:work|farm|root)/|(?<!torch)\.library\b|\$OUT\b")
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    for name in tracked:
        path = ROOT / name
        if path.suffix in {".py", ".md", ".toml", ".sh", ".yaml", ".json", ".txt"} and path.name != Path(__file__).name:
            assert not pattern.search(path.read_text(errors="ignore")), name


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(SOURCE)))
def test_text_is_never_printed_as_markup(path):
    """One helper makes every console, without markup: text that is not ours may hold brackets."""
    if path == SOURCE / "cli" / "_progress.py":
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            plain = any(k.arg == "markup" and getattr(k.value, "value", None) is False for k in node.keywords)
            markup = name in ("Console", "from_markup") or (name == "TextColumn" and not plain)
            assert not markup, f"{path}:{node.lineno}: use cli._progress.console, or markup=False"
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "rich":
            assert "print" not in {alias.name for alias in node.names}, path
