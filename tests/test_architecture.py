"""The house: layers, no cycles, one place for each library, names and words.

Read from the source alone; nothing of the project is imported.
"""

from __future__ import annotations

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parent.parent
APPS = ("accounts", "mcp_bridge", "config")

LAYERS = {
    "accounts": (
        "errors",
        "http",
        "parsing",
        "crypto",
        "models",
        "audit",
        "rate_limits",
        "authorization",
        "tokens",
        "authentication",
        "oauth",
        "imports",
        "api",
        "portal",
        "admin_site",
        "admin",
    ),
    "mcp_bridge": (
        "http",
        "models",
        "db",
        "access",
        "cache",
        "metrics",
        "audit",
        "server",
        "middleware",
        "application",
    ),
}
"""The lowest first: a package imports those before it, never those after it."""

LARGEST_PACKAGE = 12
ONE_FILE_EACH = {"migrations", "commands"}
"""Django's own folders: a file for each migration, a file for each command."""

WALLS: dict[str, tuple[str, ...]] = {
    "jwt": (
        "accounts/tokens/",
        # allauth raises the errors of its PyJWT.
        "accounts/authentication/oidc/provider.py",
    ),
    "axes": ("accounts/authentication/lockout.py", "accounts/admin/failed_logins.py"),
    "oauth2_provider": ("accounts/oauth/", "accounts/models/oauth.py"),
    "prometheus_client": ("mcp_bridge/metrics/",),
    "limits": ("accounts/rate_limits/", "mcp_bridge/middleware/rate_limits.py"),
    "psycopg": ("mcp_bridge/cache/readers/postgresql.py",),
    "asgiref": ("mcp_bridge/db.py",),
    "structlog": ("config/",),
}
"""Library -> where it may be imported."""

MAY_REPEAT = {
    "Command",
    "drops",
    "expected_triggers",
    "installed",
    "marks",
    "outside",
    "statements",
}
"""What a framework asks for, and the questions both dialects of the triggers answer."""

BANNED = (
    r"\bfor good\b",
    r"\banew\b",
    r"\bmends?\b",
    r"\bon record\b",
    r"\bwhom\b",
    r"\bis told\b",
    r"\bas they are\b",
    r"\bof its own\b",
)
"""Words that make readers stop; the plain ones are shorter."""

DEFINITIONS = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)

IMPORT_EDGES = dict[str, set[str]]


@cache
def modules(app: str) -> dict[str, Path]:
    """Dotted name -> file, without migrations: those are history."""
    found = {}
    for path in sorted((ROOT / app).rglob("*.py")):
        if "migrations" not in path.parts:
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(path: Path, known: set[str]) -> Iterator[str]:
    """Modules of ours that a file imports: at the top, late, or for types only."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                if full in known or node.module in known:
                    yield full if full in known else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)


@cache
def graph() -> IMPORT_EDGES:
    """Module -> the modules it imports."""
    files = {name: path for app in APPS for name, path in modules(app).items()}
    known = set(files)
    return {name: set(imported(path, known)) - {name} for name, path in files.items()}


def room(module: str) -> str:
    """What stands at the top of an app: a package, or a module beside them."""
    return ".".join(module.split(".")[:2])


def rooms() -> IMPORT_EDGES:
    found: IMPORT_EDGES = defaultdict(set)
    for module, targets in graph().items():
        if "." in module:
            others = {room(target) for target in targets if "." in target}
            found[room(module)] |= others - {room(module)}
    return found


def on_a_cycle(edges: IMPORT_EDGES) -> set[str]:
    """What can be reached from itself: peel off all that imports nothing left."""
    left = {name: set(targets) for name, targets in edges.items()}
    while True:
        done = {name for name, targets in left.items() if not targets & left.keys()}
        if not done:
            return set(left)
        left = {name: targets for name, targets in left.items() if name not in done}


def test_no_module_imports_itself_by_a_detour() -> None:
    """Imports for types only count, too."""
    assert not on_a_cycle(graph())


def test_no_package_imports_itself_by_a_detour() -> None:
    assert not on_a_cycle(rooms())


def test_apps_import_downwards_only() -> None:
    rank = {"accounts": 0, "mcp_bridge": 1, "config": 2}
    wrong = [
        f"{module} imports {target}"
        for module, targets in graph().items()
        for target in targets
        if rank[target.split(".")[0]] > rank[module.split(".")[0]]
    ]
    assert not wrong


@pytest.mark.parametrize("app", LAYERS)
def test_packages_import_lower_layers_only(app: str) -> None:
    """The order of LAYERS; what is not in it stands above all of it."""
    rank = {f"{app}.{name}": place for place, name in enumerate(LAYERS[app])}
    wrong = [
        f"{name} imports {target}"
        for name, targets in rooms().items()
        for target in targets
        if name in rank and target in rank and rank[target] > rank[name]
    ]
    assert not wrong
    assert all(
        (ROOT / app / name).exists() or (ROOT / app / f"{name}.py").exists()
        for name in LAYERS[app]
    )


def test_no_name_of_mcp_bridge_is_known_to_accounts() -> None:
    """Its URL names and permissions are its own to use."""
    wrong = [
        f"{path.relative_to(ROOT)}: {node.value}"
        for path in modules("accounts").values()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.match(r"mcp_bridge\.\w+_\w+\Z|admin:mcp_bridge_", node.value)
    ]
    assert not wrong


def libraries(path: Path) -> Iterator[str]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)


def test_each_library_is_imported_in_one_place() -> None:
    wrong = {
        f"{here}: {name}"
        for app in APPS
        for path in modules(app).values()
        for here in [str(path.relative_to(ROOT))]
        for name in libraries(path)
        if name in WALLS and not here.startswith(WALLS[name])
    }
    assert not wrong


def test_packages_stay_small() -> None:
    """A package of more modules is two packages."""
    sizes: Counter[str] = Counter()
    for app in APPS:
        for path in modules(app).values():
            if path.name != "__init__.py" and not ONE_FILE_EACH & set(path.parts):
                sizes[str(path.relative_to(ROOT).parent)] += 1
    assert {name: n for name, n in sizes.items() if n > LARGEST_PACKAGE} == {}


def test_no_two_things_have_one_name() -> None:
    """A search for a name finds one definition."""
    found: dict[str, list[str]] = defaultdict(list)
    for app in ("accounts", "mcp_bridge"):
        for module, path in modules(app).items():
            for node in tree(path).body:
                if isinstance(node, DEFINITIONS):
                    if not node.name.startswith("_") and node.name not in MAY_REPEAT:
                        found[node.name].append(module)
    assert {name: where for name, where in found.items() if len(where) > 1} == {}


def texts() -> Iterator[Path]:
    """What people read: code, pages, templates."""
    for app in (*APPS, "tests", "bench", "examples"):
        yield from (p for p in (ROOT / app).rglob("*.py") if p != Path(__file__))
        yield from (ROOT / app).rglob("*.html")
    yield from (ROOT / "docs").glob("*.md")
    yield from ROOT.glob("*.md")


def test_plain_words() -> None:
    pattern = re.compile("|".join(BANNED), re.IGNORECASE)
    wrong = [
        f"{path.relative_to(ROOT)}:{number}: {match[0]}"
        for path in texts()
        if "node_modules" not in path.parts
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        for match in pattern.finditer(line)
    ]
    assert not wrong


FILE = re.compile(
    r"`((?:accounts|mcp_bridge|config|tests|bench|examples|deploy)/[\w./@-]+)"
    r"(?:: ((?:\w|[., ])+))?`"
)


def symbols(path: Path) -> set[str]:
    """Names a file defines, and `Class.method`."""
    found: set[str] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            own = [n.name for n in node.body if isinstance(n, ast.FunctionDef)]
            own += [n.name for n in node.body if isinstance(n, ast.AsyncFunctionDef)]
            found |= {node.name, *(f"{node.name}.{name}" for name in own)}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return found


def test_pages_name_only_what_there_is() -> None:
    """`path/file.py: symbol, symbol` in a page is a file with these names."""
    wrong = []
    for page in [*(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md")]:
        for name, wanted in FILE.findall(page.read_text(encoding="utf-8")):
            path = ROOT / name
            if not path.exists():
                wrong.append(f"{page.name}: {name}")
            elif wanted and path.suffix == ".py":
                known = symbols(path)
                for symbol in wanted.split(","):
                    if symbol.strip() not in known:
                        wrong.append(f"{page.name}: {name}: {symbol.strip()}")
    assert not wrong


def test_every_import_downwards_would_be_noticed() -> None:
    """The cycle finder finds one, and names nothing else."""
    edges = {"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}
    assert on_a_cycle(edges) == {"a", "b", "c"}
