"""The docs blueprint: OpenAPI documents, their caching, the page and its files, and the setting that turns it off."""

from __future__ import annotations

import hashlib
import importlib
import re
from pathlib import Path
from typing import Any

import orjson
import pytest
from flask.testing import FlaskClient
from openapi_spec_validator import OpenAPIV31SpecValidator

from tableside import blueprints
from tableside.blueprints.docs import views
from tests.conftest import MakeApp, registry_of

STATIC = views.STATIC


def operations(text: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(path, method, operation) for path, item in text["paths"].items() for method, operation in item.items()]


def test_the_document_of_everything(client: FlaskClient) -> None:
    """`/openapi.json` is valid OpenAPI 3.1 and has the paths and columns of each model."""
    response = client.get("/openapi.json")
    text = response.get_json()
    assert response.content_type == "application/json"
    OpenAPIV31SpecValidator(text).validate()
    for name in ("breast-cancer", "diabetes", "iris", "wine"):
        assert {f"/v1/models/{name}:predict", f"/v2/models/{name}/infer", f"/v2/models/{name}"} <= text["paths"].keys()
    assert set(text["components"]["schemas"]["wine.Row"]["properties"]) == {
        "alcohol", "malic_acid", "magnesium", "proline", "shade", "aromatic",
    }  # fmt: skip
    ids = [operation["operationId"] for _, _, operation in operations(text)]
    assert len(ids) == len(set(ids))


def test_every_example_request_works(client: FlaskClient) -> None:
    """Each example request answers 200; the answer to the first one is the documented example answer."""
    sent = 0
    for path, method, operation in operations(client.get("/openapi.json").get_json()):
        if method != "post":
            continue
        examples = operation["requestBody"]["content"]["application/json"]["examples"]
        for at, example in enumerate(examples.values()):
            response = client.post(path, json=example["value"])
            assert response.status_code == 200, response.get_data(as_text=True)
            if at == 0:
                shown = operation["responses"]["200"]["content"]["application/json"]["example"]
                key = "predictions" if "predictions" in shown else "outputs"
                assert orjson.dumps(response.get_json()[key]) == orjson.dumps(shown[key])
            sent += 1
    assert sent >= 4 * 5


def test_every_documented_path_is_a_route(client: FlaskClient) -> None:
    """Every GET path in the document answers 200, and the document describes that answer."""
    for path, method, operation in operations(client.get("/openapi.json").get_json()):
        if method == "get":
            assert client.get(path).status_code == 200, path
            assert operation["responses"]["200"]


@pytest.mark.parametrize("spelling", ["iris/versions/1", "iris/versions/champion", "iris@champion"])
def test_one_model_and_one_version(client: FlaskClient, spelling: str) -> None:
    """Each model has its own document; in a version's document the paths name the version, and they work."""
    text = client.get("/v2/models/iris/openapi.json").get_json()
    assert "/v2/models/iris/infer" in text["paths"]
    assert not [path for path in text["paths"] if "wine" in path]
    text = client.get(f"/v2/models/{spelling}/openapi.json").get_json()
    OpenAPIV31SpecValidator(text).validate()
    path = "/v1/models/iris/versions/1:predict"
    example = text["paths"][path]["post"]["requestBody"]["content"]["application/json"]["examples"]["rows by name"]
    assert client.post(path, json=example["value"]).status_code == 200
    assert client.get("/v2/models/nope/openapi.json").status_code == 404


def test_a_document_is_sent_again_only_after_a_change(make_app: MakeApp) -> None:
    """A request with the document's ETag answers 304 until the document changes, also after a reload."""
    app = make_app()
    client = app.test_client()
    first = client.get("/openapi.json")
    assert first.headers["Cache-Control"] == "no-cache"
    tag = {"If-None-Match": first.headers["ETag"]}
    again = client.get("/openapi.json", headers=tag)
    assert (again.status_code, again.data) == (304, b"")
    registry_of(app).reload(2)
    assert client.get("/openapi.json", headers=tag).status_code == 304
    repository = Path(app.extensions["tableside"].settings.repository.path)
    (repository / "iris" / "model.toml").write_text('[columns]\nextra = "ignore"\n')
    registry_of(app).reload(3)
    changed = client.get("/openapi.json", headers=tag)
    assert changed.status_code == 200
    assert "additionalProperties" not in changed.get_json()["components"]["schemas"]["iris.Row"]


def test_a_model_that_cannot_answer_is_left_out(make_app: MakeApp, small_repository: Path) -> None:
    """`/openapi.json` leaves out a damaged version; the version's own document answers 503."""
    artifact = small_repository / "iris" / "1" / "model.skops"
    artifact.chmod(0o644)
    artifact.write_bytes(b"damaged")
    client = make_app().test_client()
    assert "/v2/models/iris" not in client.get("/openapi.json").get_json()["paths"]
    assert client.get("/v2/models/iris/openapi.json").status_code == 503


def test_the_page_loads_only_this_server_s_files(client: FlaskClient) -> None:
    """The page has no inline script and links only to this server; its Content-Security-Policy allows nothing else."""
    response = client.get("/docs")
    page = response.get_data(as_text=True)
    assert response.status_code == 200
    assert "default-src 'none'; script-src 'self';" in response.headers["Content-Security-Policy"]
    assert "unsafe-eval" not in response.headers["Content-Security-Policy"]
    assert re.findall(r"<script(?! src=)", page) == []
    links = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(links) == 4
    for link in links:
        assert link.startswith("docs/static/")
        with client.get(f"/{link}") as found:
            assert found.status_code == 200
        kept = "immutable" in found.headers["Cache-Control"]
        assert kept == (views.SWAGGER in link)
    assert client.get("/docs/").headers["Location"] == "../docs"


def test_no_path_leaves_the_static_folder(client: FlaskClient) -> None:
    """A path that leaves the static folder, or names no file, answers 404."""
    for path in ("/docs/static/../views.py", "/docs/static/%2e%2e/views.py", "/docs/static/nope.js", "/docs/static/"):
        assert client.get(path).status_code == 404


def test_docs_can_be_turned_off(make_app: MakeApp) -> None:
    """With `server.docs` off, documents, page and files answer 404; other routes still work."""
    client = make_app(server__docs="false").test_client()
    for path in ("/docs", "/docs/", "/docs/static/init.js", "/openapi.json", "/v2/models/iris/openapi.json"):
        assert client.get(path).status_code == 404, path
    assert client.get("/v2/models/iris").status_code == 200


def test_vendored_files_have_their_checksums() -> None:
    """Every file of Swagger UI has the SHA-256 that the README lists."""
    noted = dict(re.findall(r"^\| `([^`]+)` \| `([0-9a-f]{64})` \|", (STATIC / "README.md").read_text(), re.MULTILINE))
    folder = STATIC / views.SWAGGER
    assert noted == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    assert views.SWAGGER in (STATIC / "README.md").read_text()


def test_files_have_their_caching_headers(client: FlaskClient) -> None:
    """Swagger UI's files have the version in their path and may be cached for a year; Tableside's own may not."""
    with (
        client.get(f"/docs/static/{views.SWAGGER}/swagger-ui.css") as vendored,
        client.get("/docs/static/init.js") as own,
    ):
        assert vendored.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert own.headers["Cache-Control"] == "no-cache"
        for response in (vendored, own):
            assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_a_deadline_applies_to_documents(make_app: MakeApp) -> None:
    """An invalid deadline header is refused for a document as it is for a prediction."""
    client = make_app().test_client()
    late = client.get("/openapi.json", headers={"X-Request-Timeout-Ms": "0"})
    assert (late.status_code, "X-Request-Timeout-Ms" in late.get_json()["error"]) == (400, True)
    assert client.get("/openapi.json").status_code == 200


def test_every_template_is_below_its_blueprint_s_name() -> None:
    """Each blueprint's templates lie in templates/NAME, so that two blueprints cannot have the same template."""
    for folder in Path(blueprints.__file__).parent.glob("*/templates"):
        assert [entry.name for entry in folder.iterdir()] == [folder.parent.name]


def test_every_blueprint_has_the_same_shape() -> None:
    """Each blueprint's folder has views.py with an object `blueprint` of the folder's name, and a docstring.

    The status page is a second blueprint of the folder admin: it needs another access and other paths.
    """
    folders = {entry.parent.name for entry in Path(blueprints.__file__).parent.glob("*/views.py")}
    assert folders | {"page"} == {blueprint.name for blueprint in blueprints.BLUEPRINTS}
    for name in folders:
        package = importlib.import_module(f"tableside.blueprints.{name}")
        assert package.__doc__
        assert importlib.import_module(f"tableside.blueprints.{name}.views").blueprint.name == name
