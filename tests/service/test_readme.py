"""service/README.md says what the code says."""

import ast
import hashlib
import re
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

from service.protocols import catalog, health, native, pages
from service.protocols.tokens import SCOPES
from service.settings import PREFIX, Settings
from tests.asgi import in_process
from tests.documents import code, read, rows, section
from tests.server import CHECKOUT
from tests.service.test_errors import CONTRACT

DOCUMENT = "service/README.md"
SERVICE = CHECKOUT / "service"
BASE = "base"  # all modules below the rooms
ENTRIES = ("service", "__main__")


def test_settings_table_shows_every_setting_and_its_default() -> None:
    table = {name: default for name, default, _ in rows(section(DOCUMENT, "Settings"))}
    fields = Settings.model_fields
    assert list(table) == [f"`{PREFIX}{field.upper()}`" for field in fields]
    for (name, field), shown in zip(fields.items(), table.values(), strict=True):
        match field.default if field.default_factory is None else None:
            case None | ():
                assert "`" not in shown, name
            case bool() as default:
                assert shown == f"`{str(default).lower()}`"
            case float() as default:
                assert shown == f"`{default:g}`"
            case default:
                assert shown == f"`{getattr(default, 'name', default)}`"


def test_errors_table_shows_every_status() -> None:
    documented = {int(row[0]) for row in rows(section(DOCUMENT, "Errors"))}
    assert documented == set(CONTRACT.values())


def test_headers_table_shows_what_every_answer_carries(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(f"{hashlib.sha256(b'scraper').hexdigest()} metrics")
    asks = [("GET", "/"), ("GET", "/v1/models"), ("OPTIONS", "/classify"), ("PUT", "/metrics")]
    sent = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}
    sent["Authorization"] = "Bearer scraper"
    settings = {"api_tokens_file": tokens, "cors_origins": ("https://shop.example",)}
    with in_process(models=("fashion-mnist-mlp",), **settings) as client:
        answers = [client.request(method, path, headers=sent) for method, path in asks]
    carried = {name for answer in answers for name in answer.headers}
    carried -= {"content-type", "content-length", "x-request-id"}
    table = section(DOCUMENT, "Routes").partition("What else an answer carries")[2]
    shown = {name.partition(":")[0].lower() for row in rows(table) for name in code(row[0])}
    assert {re.sub("^access-control-.*", "access-control-…", name) for name in carried} == shown


def test_scopes_table_shows_every_scope() -> None:
    documented = [code(row[0])[0] for row in rows(section(DOCUMENT, "Tokens"))]
    assert documented == list(SCOPES)


def test_routes_table_shows_every_route() -> None:
    documented = set()
    table = section(DOCUMENT, "Routes").partition("###")[0]
    for row in rows(table):
        method, _, first = code(row[0])[0].partition(" ")
        documented |= {(method, path) for path in (first, *code(row[0])[1:])}
    routes = (*native.routes(), *catalog.ROUTES, *health.ROUTES, *pages.ROUTES)
    assert documented == {
        (route.method, route.path) for route in routes if "static" not in route.path
    }


def picture() -> dict[str, set[str]]:
    """Room -> rooms that an arrow of the picture leads to."""
    (diagram,) = re.findall(r"^```mermaid\n(.*?)^```$", section(DOCUMENT, "Rooms"), re.M | re.S)
    arrows: dict[str, set[str]] = defaultdict(set)
    for line in diagram.splitlines()[1:]:
        chain = [name.strip().removesuffix(".py") for name in line.split("-->")]
        for start, end in pairwise(chain):
            arrows[start].add(end)
    return arrows


def imports() -> dict[str, set[str]]:
    """Room -> rooms that its modules import."""
    rooms = {path.name for path in SERVICE.iterdir() if (path / "__init__.py").exists()}

    def room(module: str) -> str:
        return module if module in rooms or module in ENTRIES else BASE

    found: dict[str, set[str]] = defaultdict(set)
    for path in SERVICE.rglob("*.py"):
        start = room(path.relative_to(SERVICE).parts[0].removesuffix(".py"))
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.ImportFrom)
                and node.module
                and node.module.startswith("service.")
            ):
                found[start].add(room(node.module.split(".")[1]))
    return {start: ends - {start} for start, ends in found.items()}


def below(room: str, arrows: dict[str, set[str]]) -> set[str]:
    """All that the arrows from a room lead to."""
    direct = arrows.get(room, set())
    return direct.union(*(below(each, arrows) for each in direct))


def test_picture_shows_every_room() -> None:
    drawn = {name for start, ends in picture().items() for name in (start, *ends)}
    assert drawn == {*imports(), BASE}
    table = [row[0] for row in rows(section(DOCUMENT, "Rooms"))]
    assert {cell.split("/")[0].strip("[`") for cell in table} == drawn - set(ENTRIES)


def test_every_arrow_of_the_picture_is_an_import() -> None:
    real = imports()
    for start, ends in picture().items():
        assert ends <= real[start], start


def test_every_import_follows_the_arrows_of_the_picture() -> None:
    arrows = picture()
    for start, ends in imports().items():
        assert ends - {"service"} <= below(start, arrows), start


def test_arrows_of_the_picture_never_lead_back() -> None:
    arrows = picture()
    assert all(room not in below(room, arrows) for room in arrows)


def test_steps_of_a_request_name_files() -> None:
    steps = list(rows(section(DOCUMENT, "Life of a request")))
    assert len(steps) >= 10
    assert all((SERVICE / file).is_file() for row in steps for file in code(row[1]))
    assert "pixels/decode.py" in read(DOCUMENT)
