"""The house: layers, no cycles, one place for each library, names and words.

Read from the source alone; nothing of the project is imported.
"""

from __future__ import annotations

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from shutil import copytree, ignore_patterns

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
        "notifications",
        "admin",
        "admin_api",
    ),
    "mcp_bridge": (
        "http",
        "models",
        "db",
        "access",
        "metrics",
        "cache",
        "audit",
        "upstreams",
        "sessions",
        "server",
        "middleware",
        "transfer",
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
    "psycopg": (
        "mcp_bridge/cache/readers/postgresql.py",
        "accounts/management/postgresql_programs.py",
    ),
    "aiohttp": ("mcp_bridge/upstreams/",),
    "asgiref": ("mcp_bridge/db.py", "config/server/django_handler.py"),
    "structlog": ("config/",),
    "openpyxl": ("accounts/imports/",),
}
"""Library -> where it may be imported."""

MAY_REPEAT = {
    "Command",
    "create_statements",
    "drop_statements",
    "expected_triggers",
    "installed",
    "marks",
    "outside",
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

ImportGraph = dict[str, set[str]]
OTHERS = ignore_patterns("__pycache__", "static", "locale", "screenshots")


@dataclass(frozen=True)
class House:
    """The project's source, read from one folder."""

    root: Path

    @cached_property
    def files(self) -> dict[str, Path]:
        """Dotted name -> file, without migrations: those are history."""
        found = {}
        for app in APPS:
            for path in sorted((self.root / app).rglob("*.py")):
                if "migrations" not in path.parts:
                    parts = path.relative_to(self.root).with_suffix("").parts
                    found[".".join(parts).removesuffix(".__init__")] = path
        return found

    @cached_property
    def imports(self) -> ImportGraph:
        """Module -> the modules of ours that it imports."""
        known = set(self.files)
        return {
            name: set(imported(path, known)) - {name}
            for name, path in self.files.items()
        }

    @cached_property
    def packages(self) -> ImportGraph:
        """The graph between packages, and modules beside them."""
        found: ImportGraph = defaultdict(set)
        for module, targets in self.imports.items():
            if "." in module:
                others = {package_of(target) for target in targets if "." in target}
                found[package_of(module)] |= others - {package_of(module)}
        return found

    def named(self, path: Path) -> str:
        """A file as messages name it."""
        return str(path.relative_to(self.root))


def nodes(path: Path) -> list[ast.AST]:
    """The syntax tree of a file and all its nodes, read once for equal files."""
    return parsed(path.read_text(encoding="utf-8"))


@cache
def parsed(source: str) -> list[ast.AST]:
    return list(ast.walk(ast.parse(source)))


def body(path: Path) -> list[ast.stmt]:
    module = nodes(path)[0]
    assert isinstance(module, ast.Module)
    return module.body


def imported(path: Path, known: set[str]) -> Iterator[str]:
    """Modules of ours that a file imports: at the top, late, or for types only."""
    for node in nodes(path):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                if full in known or node.module in known:
                    yield full if full in known else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)


def package_of(module: str) -> str:
    """The app and the package or module at its top."""
    return ".".join(module.split(".")[:2])


def on_a_cycle(edges: ImportGraph) -> set[str]:
    """Nodes on a cycle, or between two: remove all that imports nothing left."""
    left = {name: set(targets) for name, targets in edges.items()}
    while True:
        done = {name for name, targets in left.items() if not targets & left.keys()}
        if not done:
            return set(left)
        left = {name: targets for name, targets in left.items() if name not in done}


def cycles(house: House) -> list[str]:
    """Modules and packages that import each other; imports for types count, too."""
    return sorted(on_a_cycle(house.imports) | on_a_cycle(house.packages))


def upward_imports(house: House) -> list[str]:
    """Imports against config -> mcp_bridge -> accounts and against LAYERS."""
    apps = {"accounts": 0, "mcp_bridge": 1, "config": 2}
    wrong = [
        f"{module} imports {target}"
        for module, targets in house.imports.items()
        for target in targets
        if apps[target.split(".")[0]] > apps[module.split(".")[0]]
    ]
    for app, layers in LAYERS.items():
        rank = {f"{app}.{name}": place for place, name in enumerate(layers)}
        wrong += [
            f"{name} imports {target}"
            for name, targets in house.packages.items()
            for target in targets
            if name in rank and target in rank and rank[target] > rank[name]
        ]
    return wrong


def names_of_mcp_bridge(house: House) -> list[str]:
    """URL names and permissions of mcp_bridge that accounts mentions."""
    return [
        f"{house.named(path)}: {node.value}"
        for module, path in house.files.items()
        if module.startswith("accounts")
        for node in nodes(path)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.match(r"mcp_bridge\.\w+_\w+\Z|admin:mcp_bridge_", node.value)
    ]


def libraries(path: Path) -> Iterator[str]:
    """Top packages that a file imports."""
    for node in nodes(path):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)


def wall_breaches(house: House) -> list[str]:
    """Libraries that are imported outside their place in WALLS."""
    return sorted(
        {
            f"{house.named(path)}: {name}"
            for path in house.files.values()
            for name in libraries(path)
            if name in WALLS and not house.named(path).startswith(WALLS[name])
        }
    )


def large_packages(house: House) -> list[str]:
    """Packages of more than LARGEST_PACKAGE modules."""
    sizes = Counter(
        house.named(path.parent)
        for path in house.files.values()
        if path.name != "__init__.py" and not ONE_FILE_EACH & set(path.parts)
    )
    return [name for name, size in sizes.items() if size > LARGEST_PACKAGE]


def duplicate_names(house: House) -> list[str]:
    """Classes and functions of one name in two modules of the apps."""
    found: dict[str, list[str]] = defaultdict(list)
    for module, path in house.files.items():
        for node in body(path):
            if isinstance(node, DEFINITIONS) and not module.startswith("config"):
                if not node.name.startswith("_") and node.name not in MAY_REPEAT:
                    found[node.name].append(module)
    return [f"{name}: {where}" for name, where in found.items() if len(where) > 1]


def texts(house: House) -> Iterator[Path]:
    """What people read: code, pages, templates."""
    for app in (*APPS, "tests", "bench", "examples"):
        yield from (house.root / app).rglob("*.py")
        yield from (house.root / app).rglob("*.html")
    yield from (house.root / "docs").glob("*.md")
    yield from house.root.glob("*.md")


def banned_words(house: House) -> list[str]:
    """Places of words in BANNED, this file aside."""
    pattern = re.compile("|".join(BANNED), re.IGNORECASE)
    return [
        f"{house.named(path)}:{number}: {match[0]}"
        for path in texts(house)
        if "node_modules" not in path.parts and path.name != Path(__file__).name
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        for match in pattern.finditer(line)
    ]


FILE = re.compile(
    r"`((?:accounts|mcp_bridge|config|tests|bench|examples|deploy)/[\w./@-]+)"
    r"(?:: ((?:\w|[., ])+))?`"
)


def symbols(path: Path) -> set[str]:
    """Names a file defines, and `Class.method`."""
    found: set[str] = set()
    for node in nodes(path):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            own = [n.name for n in node.body if isinstance(n, DEFINITIONS)]
            found |= {node.name, *(f"{node.name}.{name}" for name in own)}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return found


def missing_places(house: House) -> list[str]:
    """`path/file.py: symbol, symbol` in a page where file or symbol does not exist."""
    wrong = []
    for page in [*(house.root / "docs").glob("*.md"), *house.root.glob("*.md")]:
        for name, wanted in FILE.findall(page.read_text(encoding="utf-8")):
            path = house.root / name
            if not path.exists():
                wrong.append(f"{page.name}: {name}")
            elif wanted and path.suffix == ".py":
                absent = {w.strip() for w in wanted.split(",")} - symbols(path)
                wrong += [f"{page.name}: {name}: {symbol}" for symbol in absent]
    return wrong


Rule = Callable[[House], list[str]]
RULES: tuple[Rule, ...] = (
    cycles,
    upward_imports,
    names_of_mcp_bridge,
    wall_breaches,
    large_packages,
    duplicate_names,
    banned_words,
    missing_places,
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_architecture_rules_hold(rule: Rule) -> None:
    """A message names the file and what is wrong there."""
    assert rule(House(ROOT)) == []


def test_every_layer_exists() -> None:
    """A package that was renamed would be left out of the order."""
    names = [f"{app}.{name}" for app, layers in LAYERS.items() for name in layers]
    assert set(names) <= {package_of(module) for module in House(ROOT).files}


PLANTED: dict[str, tuple[Rule, str, str]] = {
    "a cycle of modules": (
        cycles,
        "accounts/errors.py",
        "from accounts.tokens import issue\n",
    ),
    "a cycle by a late import": (
        cycles,
        "accounts/models/roles.py",
        "def late() -> None:\n    from accounts.authorization import delegation\n",
    ),
    "accounts imports mcp_bridge": (
        upward_imports,
        "accounts/errors.py",
        "from mcp_bridge.access import decision\n",
    ),
    "a lower layer imports a higher one": (
        upward_imports,
        "accounts/crypto/secrets.py",
        "from accounts.portal import urls\n",
    ),
    "accounts names a permission of mcp_bridge": (
        names_of_mcp_bridge,
        "accounts/errors.py",
        'NAME = "mcp_bridge.view_primitive"\n',
    ),
    "a library outside its wall": (
        wall_breaches,
        "accounts/portal/urls.py",
        "import jwt\n",
    ),
    "a name that exists elsewhere": (
        duplicate_names,
        "accounts/errors.py",
        "class IssuedToken: ...\n",
    ),
    "a banned word": (
        banned_words,
        "accounts/errors.py",
        "# Gone for good.\n",
    ),
    "a page that names what is not there": (
        missing_places,
        "docs/architecture.md",
        "`accounts/errors.py: NoSuchError`\n",
    ),
}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source, to plant faults in."""
    root = tmp_path_factory.mktemp("house")
    for folder in (*APPS, "docs"):
        copytree(ROOT / folder, root / folder, ignore=OTHERS)
    return root


@pytest.mark.parametrize("planted", PLANTED)
def test_a_violation_is_found(planted: str, copy: Path) -> None:
    """Each rule fails for a fault of its kind."""
    rule, name, text = PLANTED[planted]
    before, sound = set(rule(House(copy))), (copy / name).read_text(encoding="utf-8")
    (copy / name).write_text(sound + text, encoding="utf-8")
    found = set(rule(House(copy)))
    (copy / name).write_text(sound, encoding="utf-8")
    assert found - before


def test_a_package_too_large_is_found(tmp_path: Path) -> None:
    """One more module than allowed."""
    package = tmp_path / "accounts" / "parsing"
    package.mkdir(parents=True)
    for number in range(LARGEST_PACKAGE + 1):
        (package / f"module_{number}.py").write_text("")
    assert large_packages(House(tmp_path)) == ["accounts/parsing"]
