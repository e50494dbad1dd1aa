"""The shape of the project: which way arrows go, what an import loads, how long rooms are."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = sorted((ROOT / "textgym").rglob("*.py"))
AGENTS = sorted((ROOT / "agents" / "textgym_agents").rglob("*.py"))
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module)
    return found


def packages(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imports(path)}


def test_the_environment_knows_no_agent_and_no_model():
    for path in ENVIRONMENT:
        assert not packages(path) & {"textgym_agents", "transformers", "accelerate", "safetensors", "tyro"}, path
        if path.name != "torch_store.py" and path.parent.name != "integrations":
            assert "torch" not in packages(path), path
        if "view" not in path.parts:
            assert "rich" not in packages(path), path


def test_files_of_the_environment_import_only_what_comes_before_them():
    order = [
        *[
            "ledger",
            "episode",
            "tokenizer",
            "action_masks",
            "names",
            "prompts",
            "rewards",
            "streams",
            "parts",
            "criteria",
            "credit",
            "tasks",
            "task",
            "assign",
            "seeds",
            "time_limits",
            "render",
            "info",
        ],
        *[
            "rules",
            "store",
            "torch_store",
            "output",
            "step_infos",
            "text",
            "exact",
            "env",
            "pool",
            "late",
            "texts",
            "vector",
            "wrappers",
            "vector_wrappers",
            "probes",
            "assigner_probes",
            "checks",
        ],
    ]
    for path in ENVIRONMENT:
        if path.parent.name != "textgym" or path.stem not in order:
            continue
        for name in imports(path):
            parts = name.split(".")
            if parts[0] == "textgym" and len(parts) > 1:
                assert order.index(parts[1]) < order.index(path.stem), f"{path.name} imports {name}"


@pytest.mark.parametrize("code", ["import textgym", "import gymnasium as g, textgym; g.make('TextGen-v0').reset()",
                                  "import gymnasium as g, textgym; g.make_vec('TextGen-v0', num_envs=2).reset()"])  # fmt: skip
def test_importing_and_playing_loads_no_torch(code):
    heavy = (
        "{'torch', 'transformers', 'stable_baselines3', 'tianshou', 'torchrl', 'ray', 'accelerate', 'datasets', 'pyarrow', "
        "'rich', 'tyro', 'textgym_agents'}"
    )
    check = f"{code}; import sys; found = {heavy} & set(sys.modules); assert not found, found"
    subprocess.run([sys.executable, "-c", check], check=True, capture_output=True, text=True)


def test_no_pickle_eval_exec_or_global_random_state():
    for path in [*ENVIRONMENT, *AGENTS, *EXAMPLES]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in {"eval", "exec", "torch.load", "torch.save", "np.random.seed", "random.seed"}, path
                if called == "torch.manual_seed":  # inside fork_rng; libraries sample from the global generator
                    assert path.name in {"model.py", "lora.py", "ilql.py"} or path in EXAMPLES, path
        allowed = {"random"} if path.name == "probes.py" else set()  # it looks whether a task touches the global state
        assert not packages(path) & {"pickle", "random"} - allowed, path


def test_imports_stand_at_the_top():
    """But for one: output="torch" is where the vector door asks for torch."""
    for path in [*ENVIRONMENT, *AGENTS]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                inner = [n for n in ast.walk(node) if isinstance(n, ast.Import | ast.ImportFrom)]
                assert not inner or (path.name, node.name) == ("output.py", "make_store"), (path, node.name)


def test_rooms_are_short():
    for path in [*ENVIRONMENT, *AGENTS]:
        text = path.read_text()
        assert text.count("\n") <= 400, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                docstring = (ast.get_docstring(node) or "").count("\n") + 1
                assert node.end_lineno - node.lineno + 1 - docstring <= 70, (path, node.name)


def test_every_module_opens_with_what_it_leaves_out():
    for path in [*ENVIRONMENT, *AGENTS]:
        if path.name != "__init__.py":
            assert "Left out on purpose:" in (ast.get_docstring(ast.parse(path.read_text())) or ""), path


def test_every_source_file_has_its_test_file():
    for path in [*ENVIRONMENT, *AGENTS]:
        if path.name != "__init__.py":
            assert (ROOT / "tests" / f"test_{path.stem}.py").exists(), path


def test_agents_is_a_source_root_not_a_package():
    assert not (ROOT / "agents" / "__init__.py").exists()
    assert (ROOT / "textgym" / "py.typed").exists()
    assert (ROOT / "agents" / "textgym_agents" / "py.typed").exists()


def test_nothing_speaks_of_absolute_paths():
    for path in [*ENVIRONMENT, *AGENTS, *EXAMPLES, *ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for word in ("/" + "work/", "/" + "root/", "/" + "tmp/"):
            assert word not in path.read_text(), path


def test_names_of_tests_hold_no_address_so_that_processes_collect_the_same(request):
    """Several processes (``pytest -n 2``) refuse to run names that differ between them; sees what is collected with it."""
    assert not [item.nodeid for item in request.session.items if " at 0x" in item.nodeid]
