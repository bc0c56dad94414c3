"""The house rules that a machine can keep: who imports whom."""

import ast
import re
import statistics
import subprocess
import sys
from functools import cache

import pytest

from tests.support.imports import FILES, MODULES, imports, loaded_with, module_name, parsed
from tests.support.paths import SOURCE, TESTS
from tests.support.without_extras import CORE, FOLDERS, SCRIPTS

FLOORS = (
    *("utils", "stats", "core", "tasks", "rewards", "credit", "penalties", "testing", "objectives", "catalog"),
    *("rollouts", "shared_prefix", "data", "curricula", "pocket", "control", "evaluation", "samplers", "drawing"),
    *("checks", "environments", "engine", "fields", "callbacks", "trl", "verl", "runs"),
    *("selection", "probe", "search", "report", "lab", "cli"),
)
"""The folders of the package from the ground up. A folder imports none that stands after it."""
LANGUAGE = ("utils", "stats", "core", "credit", "penalties", "testing", "objectives", "catalog", "control")
"""What needs torch alone."""
ENGINES = {"trl": "trl", "verl": "verl", "vllm": "samplers"}
OBJECTIVE_TOOLS = ("_method", "_official", "parsing")


def modules(*folders):
    """The files of those folders; all, where none is named."""
    return [path for path in MODULES if not folders or place(path) in folders]


def place(path):
    return path.relative_to(SOURCE).with_suffix("").parts[0]


@cache
def imports_by_module():
    """What each module imports; read when a law asks for it, not whenever tests are collected."""
    return {module_name(path): set(imports(path)) for path in MODULES}


def test_every_folder_has_its_floor():
    assert {place(path) for path in MODULES} - {"__init__", "__main__", "_former"} == set(FLOORS)


def breaches(paths, allowed):
    """ "FILE imports NAME" for every import of those files that is not allowed: `allowed(path, name)`."""
    return [
        f"{module_name(path)} imports {name}"
        for path in paths
        for name in sorted(imports_by_module()[module_name(path)])
        if not allowed(path, name)
    ]


def is_below(path, name):
    top, *rest = name.split(".")
    inside = top == "qredit" and rest and rest[0] in FLOORS
    return not inside or FLOORS.index(rest[0]) <= FLOORS.index(place(path))


def test_a_folder_imports_only_folders_below_it():
    assert breaches(modules(*FLOORS), is_below) == []


def is_language(path, name):
    top, *rest = name.split(".")
    outside = top in sys.stdlib_module_names or top in ("torch", "jaxtyping")
    return outside or (top == "qredit" and (not rest or rest[0] in LANGUAGE))


def test_the_language_imports_torch_and_itself_only():
    assert breaches(modules(*LANGUAGE), is_language) == []


@pytest.mark.parametrize("name", ["qredit.samplers.protocol", "qredit.samplers.think_then_answer"])
def test_what_a_sampler_has_to_be_is_said_without_an_engine(name):
    """Neither these files, nor those of the package that they lead to, import anything but torch."""
    graph, reached, found = imports_by_module(), {name}, {name}
    while found:
        found = {other for one in found for other in graph[one] if other in FILES} - reached
        reached |= found
    tops = {other.split(".")[0] for one in reached for other in graph[one]} - {"qredit", "torch", "jaxtyping"}
    foreign = sorted(tops - set(sys.stdlib_module_names))
    assert not foreign, f"{name} leads to imports of {', '.join(foreign)}"


def test_the_language_is_part_of_what_works_without_extras():
    assert set(LANGUAGE) <= set(FOLDERS) <= set(FLOORS)


def test_what_works_without_extras_imports_the_core_alone():
    known = {*CORE, "qredit", *FILES, *sys.stdlib_module_names}
    names = [module_name(path) for path in modules(*FOLDERS)]
    outside = {name: loaded_with(name) - known for name in names if name not in SCRIPTS}
    assert {name: found for name, found in outside.items() if found} == {}


def circles(graph):
    """The sets of files that import each other, by any way round; imports for type checkers count too."""
    seen, order = set(), []

    def visit(start, edges, out):
        stack = [(start, iter(edges(start)))]
        seen.add(start)
        while stack:
            node, rest = stack[-1]
            following = next((name for name in rest if name not in seen), None)
            if following is None:
                out.append(node)
                stack.pop()
            else:
                seen.add(following)
                stack.append((following, iter(edges(following))))

    known = {name: {other for other in graph[name] if other in graph and other != name} for name in graph}
    back = {name: {other for other in known if name in known[other]} for name in known}
    for name in sorted(known):
        if name not in seen:
            visit(name, known.__getitem__, order)
    seen = set()
    found = []
    for name in reversed(order):
        if name not in seen:
            part = []
            visit(name, back.__getitem__, part)
            found.append(frozenset(part))
    return [part for part in found if len(part) > 1]


def test_imports_of_the_package_name_a_file_that_is_there():
    """By its present path, and never by `.`: other laws read paths as they are written."""
    relative = [
        module_name(path)
        for path in MODULES
        if any(isinstance(node, ast.ImportFrom) and node.level for node in ast.walk(parsed(path)))
    ]
    assert relative == []
    assert breaches(MODULES, lambda path, name: name.split(".")[0] != "qredit" or name in FILES) == []


def test_no_file_of_the_package_is_ignored():
    found = subprocess.run(
        ["git", "ls-files", "--others", "--ignored", "--exclude-standard", "--", str(SOURCE)],
        cwd=SOURCE, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert [line for line in found.stdout.splitlines() if line.endswith((".py", ".json"))] == []


def test_no_files_import_each_other_in_a_circle():
    graph = {name: found - {"qredit"} for name, found in imports_by_module().items()}
    assert circles(graph) == []


def test_a_circle_would_be_seen():
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set()}
    assert circles(graph) == [frozenset({"b", "c"})]


def test_engines_are_imported_by_their_adapter_alone():
    assert breaches(MODULES, lambda path, name: place(path) == ENGINES.get(name.split(".")[0], place(path))) == []


def test_no_adapter_imports_another():
    assert breaches(modules("trl"), lambda path, name: not name.startswith("qredit.verl")) == []
    assert breaches(modules("verl"), lambda path, name: not name.startswith("qredit.trl")) == []


def test_step_and_callbacks_belong_to_no_engine():
    engines = ("trl", "verl", "accelerate", "datasets", "peft")
    assert breaches(modules("engine", "callbacks"), lambda path, name: name.split(".")[0] not in engines) == []


def test_data_and_rollouts_know_nothing_of_credit():
    credit = ("qredit.credit", "qredit.core.objective", "qredit.core.chain")
    assert breaches(modules("tasks", "rewards", "rollouts"), lambda path, name: not name.startswith(credit)) == []


def test_objective_is_taken_from_registry_and_not_from_its_file():
    others = [path for path in MODULES if place(path) != "objectives"]
    found = [
        f"{module_name(path)} imports {node.module}"
        for path in others
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.ImportFrom)
        and (node.module or "").startswith("qredit.objectives.")
        and node.module.split(".")[2] not in OBJECTIVE_TOOLS
    ]
    assert found == []


def code_lines(path):
    """Numbers of the lines that are neither blank, nor comment, nor docstring."""
    text = path.read_text()
    told = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            told |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    lines = enumerate(text.splitlines(), 1)
    return {n for n, line in lines if n not in told and line.strip() and not line.strip().startswith("#")}


def function_lengths(path):
    counted = code_lines(path)
    functions = [node for node in ast.walk(parsed(path)) if isinstance(node, ast.FunctionDef)]
    return [sum(node.lineno <= line <= node.end_lineno for line in counted) for node in functions]


def test_objectives_and_functions_of_the_core_stay_short():
    objectives = [p for p in MODULES if place(p) == "objectives" and not p.name.startswith("_")]
    assert statistics.median(len(code_lines(path)) for path in objectives) <= 15
    lengths = sorted(length for path in MODULES if place(path) in LANGUAGE for length in function_lengths(path))
    assert lengths[int(0.9 * len(lengths))] <= 30
    assert len(lengths) > 500


def test_the_tests_lie_as_the_package_does():
    """tests/FOLDER is of src/qredit/FOLDER; what concerns the whole package lies in tests/ itself."""
    folders = {path.name for path in TESTS.iterdir() if (path / "__init__.py").exists()}
    assert folders - {"support"} <= set(FLOORS)
    assert sorted(TESTS.rglob("test_*.py")) == sorted([*TESTS.glob("test_*.py"), *TESTS.glob("*/test_*.py")])
    assert not list((TESTS / "support").glob("test_*.py"))


def documented(docstring, title):
    """The names that a section of a docstring describes, such as Args or Attributes."""
    section = re.search(rf"^{title}:\n((?: {{4,}}.*\n?|\n)+)", docstring, re.MULTILINE)
    entries = re.findall(r"^ {4}(\*{0,2}\w+(?:, \*{0,2}\w+)*):", section.group(1), re.MULTILINE) if section else []
    return {name.strip("* ") for names in entries for name in names.split(",")}


def public_functions(node, prefix="", derived=False):
    """Each public function of a module, by its dotted name; of a derived class only those that say what they do."""
    for child in ast.iter_child_nodes(node):
        public = not getattr(child, "name", "_").startswith("_")
        if isinstance(child, ast.ClassDef) and public:
            yield from public_functions(child, f"{prefix}{child.name}.", bool(child.bases))
        elif isinstance(child, ast.FunctionDef) and public:
            shown = {decorator.id for decorator in child.decorator_list if isinstance(decorator, ast.Name)}
            if "overload" not in shown and (ast.get_docstring(child) or not derived):
                yield f"{prefix}{child.name}", child


def undocumented(tree):
    """Parameters that the docstring of a public function with three or more does not describe."""
    for name, function in public_functions(tree):
        given = function.args
        names = [one.arg for one in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
        names = [one for one in names if one not in ("self", "cls")]
        missing = set(names) - documented(ast.get_docstring(function) or "", "Args")
        if len(names) > 2 and missing:
            yield f"{name}: {', '.join(sorted(missing))}"


def test_functions_of_three_parameters_describe_each():
    public = [path for path in MODULES if path.name == "__init__.py" or not path.name.startswith("_")]
    assert [f"{module_name(path)} {told}" for path in public for told in undocumented(parsed(path))] == []


def attributes_of(node):
    """The names that a class gives its values: fields, methods, and what it sets on itself."""
    for child in ast.walk(node):
        if isinstance(child, ast.FunctionDef):
            yield child.name
        elif isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store):
            yield child.id
        elif isinstance(child, ast.Attribute) and isinstance(child.value, ast.Name) and child.value.id == "self":
            yield child.attr


@cache
def attributes_by_class():
    """The attributes of each class of the package, by its name; of two with one name, those of both."""
    found = {}
    for node in (node for path in MODULES for node in ast.walk(parsed(path)) if isinstance(node, ast.ClassDef)):
        found.setdefault(node.name, set()).update(attributes_of(node))
    return found


def strangers(tree):
    """Names that a docstring describes as attributes or arguments, and that are none."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            bases = [ast.unparse(base).split("[")[0] for base in node.bases]
            described = documented(ast.get_docstring(node) or "", "Attributes")
            known = set(attributes_of(node)).union(*(attributes_by_class().get(base, ()) for base in bases))
        elif isinstance(node, ast.FunctionDef):
            given = node.args
            every = (*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg)
            described = documented(ast.get_docstring(node) or "", "Args")
            known = {one.arg for one in every if one is not None}
        else:
            continue
        if described - known:
            yield f"{node.name}: {', '.join(sorted(described - known))}"


def test_docstrings_describe_what_is_there():
    assert [f"{module_name(path)} {told}" for path in MODULES for told in strangers(parsed(path))] == []


def test_a_docstring_that_leaves_out_or_invents_would_be_seen():
    source = '''
class Box:
    """A box.

    Attributes:
        size: how large.
        colour: of no box.
    """

    size: int

    def fill(self, what, how, when):
        """Fill it.

        Args:
            what, how: both.
            why: nobody knows.
        """
'''
    assert list(undocumented(ast.parse(source))) == ["Box.fill: when"]
    assert list(strangers(ast.parse(source))) == ["Box: colour", "fill: why"]


def test_names_of_tests_are_under_60_characters():
    names = [
        node.name
        for path in TESTS.rglob("test_*.py")
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]
    assert len(names) > 1000
    assert [name for name in names if len(name) >= 60] == []


def test_the_catalog_is_what_the_registries_say():
    from qredit.catalog import FILE, as_text, read_registries

    assert FILE.read_text(encoding="utf-8") == as_text(read_registries()), "run python -m qredit.catalog"


def test_stub_shows_type_checkers_every_method_of_the_registry():
    from qredit.catalog import STUB, stub
    from qredit.objectives import REGISTRY

    assert STUB.read_text(encoding="utf-8") == stub(REGISTRY), "run python -m qredit.catalog"
    assert all(found.name == name for name, found in REGISTRY.items())
