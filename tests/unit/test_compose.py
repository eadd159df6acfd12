"""docker-compose.yml says what it should, as far as that can be seen without Docker."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from ragver import __version__
from ragver.api.feed import HEARTBEAT_S
from ragver.cli.app import app
from ragver.cli.server import STOP_S_MAX
from ragver.index.qdrant_server import SERVER_VERSION_MIN
from ragver.settings import Settings

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.yml"
BALANCER = (ROOT / "deploy" / "haproxy.cfg").read_text(encoding="utf-8")
HEALTHCHECK = ROOT / "deploy" / "healthcheck.py"

SECRETS = {"POSTGRES_PASSWORD": "hidden1", "QDRANT_API_KEY": "hidden2", "RAGVER_SECRET_KEY": "hidden3"}
OURS = f"ragver:{__version__}"
POSTGRES_MAJOR_MIN = 15
PINNED = r"[\w./-]+:v?(\d+)\.(\d+)(\.\d+)?(-[\w.]+)?"
VARIABLE = re.compile(r"\$(?:\$|\{(?P<name>\w+)(?:(?P<kind>:[-?])(?P<word>[^}]*))?\})")
SECONDS = {"s": 1, "m": 60}


class Missing(Exception):
    """Compose would refuse to go on: a variable is not set that has to be."""


def resolved(value: Any, variables: Mapping[str, str]) -> Any:
    """A value of the file as Compose reads it, its variables replaced."""
    if isinstance(value, dict):
        return {key: resolved(inner, variables) for key, inner in value.items()}
    if isinstance(value, list):
        return [resolved(inner, variables) for inner in value]
    return VARIABLE.sub(lambda found: _replaced(found, variables), value) if isinstance(value, str) else value


def _replaced(found: re.Match[str], variables: Mapping[str, str]) -> str:
    name, kind, word = found["name"], found["kind"], found["word"]
    if name is None:
        return "$"
    if variables.get(name):
        return variables[name]
    if kind == ":-":
        return str(word)
    raise Missing(f"{name}: {word}")


def read(variables: Mapping[str, str]) -> dict[str, Any]:
    found = resolved(yaml.safe_load(COMPOSE.read_text(encoding="utf-8")), variables)
    assert isinstance(found, dict)
    return found


def schema_accepts(file: Path) -> bool:
    """Whether the JSON schema of the Compose Specification does, which check-jsonschema brings along."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(file)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


PROJECT = read(SECRETS)
SERVICES: dict[str, dict[str, Any]] = PROJECT["services"]
IMAGES = {name: service["image"] for name, service in SERVICES.items()}
OWN = sorted(name for name, image in IMAGES.items() if image == OURS)


def test_it_meets_the_specification(tmp_path: Path) -> None:
    assert schema_accepts(COMPOSE)

    text = COMPOSE.read_text(encoding="utf-8")
    wrong = tmp_path / "docker-compose.yml"
    wrong.write_text(text.replace("stop_grace_period", "stop_grace_time"), encoding="utf-8")
    assert not schema_accepts(wrong)


@pytest.mark.parametrize("secret", sorted(SECRETS))
def test_a_secret_that_is_not_set_stops_everything(secret: str) -> None:
    """Also one that is set to nothing: there are no passwords by default."""
    with pytest.raises(Missing, match=secret):
        read(SECRETS | {secret: ""})


def test_no_secret_is_written_down() -> None:
    """Everything that looks like one comes from a variable that has to be set."""
    raw = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]
    secret = {
        str(value)
        for service in raw.values()
        for name, value in _environment(service).items()
        if re.search("PASSWORD|KEY|DATABASE_URL", name) and value is not None
    }

    assert secret
    assert all(re.search(r"\$\{\w+:\?", value) for value in secret)


@pytest.mark.parametrize("image", sorted(set(IMAGES.values())))
def test_images_are_pinned_by_version(image: str) -> None:
    assert re.fullmatch(PINNED, image)


def test_the_stores_are_new_enough() -> None:
    assert _version("qdrant") >= SERVER_VERSION_MIN
    assert _version("postgres") >= (POSTGRES_MAJOR_MIN,)


def test_one_service_builds_the_image_of_all_and_nobody_fetches_it() -> None:
    assert ["api", "indexer", "migrate", "reconciler"] == OWN
    assert {"migrate": "."} == {name: service["build"] for name, service in SERVICES.items() if "build" in service}
    assert {"api": "never", "indexer": "never", "migrate": "missing", "reconciler": "never"} == {
        name: SERVICES[name]["pull_policy"] for name in OWN
    }


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_dependencies_can_be_met(name: str) -> None:
    for needed, how in SERVICES[name].get("depends_on", {}).items():
        service = SERVICES[needed]
        match how["condition"]:
            case "service_healthy":
                assert "test" in service["healthcheck"]
            case "service_completed_successfully":
                assert "no" == service["restart"]
            case condition:
                assert "service_started" == condition


def test_volumes_and_networks_are_declared_and_used() -> None:
    mounts = [mount.split(":") for service in SERVICES.values() for mount in service.get("volumes", [])]
    named = {source for source, *_ in mounts if not source.startswith(".")}
    files = {source: rest[-1] for source, *rest in mounts if source.startswith(".")}

    assert set(PROJECT["volumes"]) == named
    assert {"./deploy/haproxy.cfg": "ro"} == files
    assert all((ROOT / file).is_file() for file in files)
    assert set(PROJECT["networks"]) == {network for service in SERVICES.values() for network in service["networks"]}


def test_only_the_balancer_is_published_and_on_loopback() -> None:
    assert {"balancer": ["127.0.0.1:8000:8000"]} == {
        name: service["ports"] for name, service in SERVICES.items() if "ports" in service
    }
    assert ["127.0.0.1:9000:8000"] == read(SECRETS | {"RAGVER_PORT": "9000"})["services"]["balancer"]["ports"]


def test_the_stores_have_no_way_out_and_the_balancer_none_to_them() -> None:
    assert {"internal": True} == PROJECT["networks"]["stores"]
    assert {"balancer", "api"} == {name for name, service in SERVICES.items() if "public" in service["networks"]}
    assert ["public"] == SERVICES["balancer"]["networks"]


@pytest.mark.parametrize("name", OWN)
def test_commands_are_ones_that_ragver_has(name: str) -> None:
    assert 0 == CliRunner().invoke(app, [*SERVICES[name]["command"], "--help"]).exit_code


def test_no_server_that_listens_on_all_addresses_is_open() -> None:
    """They refuse to start before there is a key; the first is made by one command, in a container of the API's."""
    assert all("ALLOW_UNAUTHENTICATED" not in key for name in OWN for key in _environment(SERVICES[name]))
    guide = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    (service, words) = re.findall(r"docker compose run --rm (\w+) (keys create .*?)\s+#", guide)[0]
    command = words.split()

    assert "api" == service
    assert 0 == CliRunner().invoke(app, [*command[:2], "--help"]).exit_code
    assert ["--role", "admin"] == command[-2:]
    assert guide.index(words) < guide.index("docker compose up --detach --wait\ncurl")
    assert {"migrate"} == {
        needed for needed, how in SERVICES["api"]["depends_on"].items() if how["condition"].endswith("successfully")
    }


@pytest.mark.parametrize("name", OWN)
def test_settings_are_ones_that_ragver_has(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = _environment(SERVICES[name])
    unknown = {key for key in environment if key.removeprefix("RAGVER_").lower() not in Settings.model_fields}
    for key, value in environment.items():
        if value is not None:
            monkeypatch.setenv(key, value)
    settings = Settings()

    assert set() == unknown
    assert "postgresql://ragver:hidden1@postgres:5432/ragver" == settings.database_url


@pytest.mark.parametrize("name", ["api", "indexer", "reconciler"])
def test_servers_share_secret_and_stores(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in _environment(SERVICES[name]).items():
        if value is not None:
            monkeypatch.setenv(key, value)
    settings = Settings()

    assert settings.secret_key is not None
    assert settings.qdrant_api_key is not None
    assert ("hidden3", "hidden2") == (
        settings.secret_key.get_secret_value(),
        settings.qdrant_api_key.get_secret_value(),
    )
    assert ("http://qdrant:6333", "0.0.0.0") == (settings.qdrant_url, settings.host)
    assert _environment(SERVICES["qdrant"])["QDRANT__SERVICE__API_KEY"] == settings.qdrant_api_key.get_secret_value()


def test_two_replicas_answer_and_one_process_indexes() -> None:
    """Only replicas are in the balancer's pool."""
    servers = {name: SERVICES[name]["command"] for name in OWN if SERVICES[name]["command"][0] == "serve"}
    pool = re.findall(r"^\s*server(?:-template)? \w+ (\d+) (\w+):(\d+) ", BALANCER, re.MULTILINE)

    assert {"api": ["serve", "--no-indexer"], "indexer": ["serve"]} == servers
    assert {"replicas": 2} == SERVICES["api"]["deploy"]
    assert "deploy" not in SERVICES["indexer"]
    assert [("8", "api", str(Settings.model_fields["port"].default))] == pool


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_services_can_do_no_more_than_they_need(name: str) -> None:
    service = SERVICES[name]

    assert (True, ["ALL"]) == (service["read_only"], service["cap_drop"])
    assert ["no-new-privileges:true"] == service["security_opt"]
    assert ("no" if name == "migrate" else "unless-stopped") == service["restart"]


def test_a_stop_leaves_enough_time() -> None:
    """For requests under way at a replica, and at the balancer for the streams that it cuts off in the end."""
    cut_off = re.search(r"hard-stop-after (\d+)s", BALANCER)

    assert all(STOP_S_MAX < _seconds(SERVICES[name]["stop_grace_period"]) for name in ("api", "indexer"))
    assert cut_off is not None
    assert int(cut_off[1]) < _seconds(SERVICES["balancer"]["stop_grace_period"])


def test_the_balancer_outwaits_a_silent_feed() -> None:
    patience = dict(re.findall(r"timeout (client|server) (\w+)", BALANCER))

    assert {"client", "server"} == set(patience)
    assert all(2 * HEARTBEAT_S < _seconds(limit) for limit in patience.values())


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (204, False), (401, False), (503, False), (None, False)])
def test_the_health_checks_tell_good_from_bad(status: int | None, healthy: bool) -> None:
    """What the containers run, without a container; None is a server that is gone."""
    with _answering(status) as (port, asked):
        kind, *probe = SERVICES["qdrant"]["healthcheck"]["test"]
        assert "CMD" == kind
        qdrant = [part.replace("127.0.0.1/6333", f"127.0.0.1/{port}") for part in probe]
        own = [sys.executable, str(HEALTHCHECK)]
        told = [
            subprocess.run(command, env={"RAGVER_PORT": str(port)}, capture_output=True, check=False).returncode == 0
            for command in (qdrant, own)
        ]

    assert [healthy, healthy] == told
    assert ([] if status is None else ["/readyz", "/healthz"]) == asked


def _environment(service: Mapping[str, Any]) -> dict[str, str | None]:
    return dict(service.get("environment") or {})


def _version(name: str) -> tuple[int, ...]:
    found = re.fullmatch(PINNED, IMAGES[name])
    assert found is not None
    return int(found[1]), int(found[2])


def _seconds(duration: str) -> int:
    return int(duration[:-1]) * SECONDS[duration[-1]]


@contextmanager
def _answering(status: int | None) -> Iterator[tuple[int, list[str]]]:
    """The port of a server that gives this answer, and the paths that it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status or 500)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Says nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        if status is not None:
            thread.start()
            yield port, asked
            server.shutdown()
            thread.join()
    if status is None:
        yield port, asked
