"""No container engine is needed: what the deployment's files name is looked up where it has to be."""

import ast
import configparser
import importlib.metadata
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from tasks.settings import Settings

REPOSITORY = Path(__file__).resolve().parents[1]
COMPOSE = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
AIRFLOW = [name for name in SERVICES if name.startswith("airflow-")]
ONE_SHOT = {"airflow-init"}
DOCKERFILES = ("Dockerfile", "mlflow/Dockerfile", "nearline/Dockerfile")
IN_IMAGE = Path("/opt/tributary")
VARIABLE = re.compile(r"(?<!\$)\$\{(\w+)(?:(:[-?])([^}]*))?\}")
IS_SECRET = re.compile(r"PASSWORD|SECRET|FERNET|TOKEN|AUTH$")


def environment(service: str) -> dict[str, str | None]:
    return SERVICES[service].get("environment", {})


def texts(node: object) -> list[str]:
    """List every string in a tree of mappings and lists."""
    if isinstance(node, dict):
        return [text for value in node.values() for text in texts(value)]
    if isinstance(node, list):
        return [text for value in node for text in texts(value)]
    return [node] if isinstance(node, str) else []


def used_variables() -> dict[str, set[tuple[str, str]]]:
    """Give each interpolated variable with its operators and defaults."""
    used: dict[str, set[tuple[str, str]]] = {}
    for text in texts(COMPOSE):
        for name, operator, value in VARIABLE.findall(text):
            used.setdefault(name, set()).add((operator, value))
    return used


def example_variables() -> dict[str, str]:
    lines = (REPOSITORY / ".env.example").read_text().splitlines()
    given = [re.fullmatch(r"(?:# )?([A-Z][A-Z0-9_]+)=(.*)", line) for line in lines]
    return {match[1]: match[2] for match in given if match}


def airflow_options() -> set[str]:
    """Give the AIRFLOW__ variables of the installed Airflow, read from its files without importing it."""
    package = Path(importlib.util.find_spec("airflow").submodule_search_locations[0])
    sections = yaml.safe_load((package / "config_templates" / "config.yml").read_text())
    known = {(name, option) for name, section in sections.items() for option in section["options"]}
    return {f"AIRFLOW__{section}__{option}".upper() for section, option in known}


def airflow_commands() -> list[list[str]]:
    """List the airflow command lines of services, health checks and the init script, without `airflow`."""
    script = COMPOSE["configs"]["airflow-init"]["content"].replace("\\\n", " ").splitlines()
    lines = [SERVICES[name]["command"] for name in AIRFLOW]
    lines += [SERVICES[name]["healthcheck"]["test"][1:] for name in AIRFLOW if name not in ONE_SHOT]
    lines += [shlex.split(line.replace("$$", "$")) for line in script]
    return [line[1:] for line in lines if line and line[0] == "airflow"]


def test_compose_file_follows_the_compose_specification() -> None:
    command = ["check_jsonschema", "--builtin-schema", "vendor.compose-spec", "docker-compose.yml"]
    checked = subprocess.run(
        [sys.executable, "-m", *command], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_service_of_the_design_is_there() -> None:
    needed = {
        "postgres",
        "redis",
        "mlflow",
        "airflow-api-server",
        "airflow-scheduler",
        "airflow-dag-processor",
        "publish-hook",
        "mnr",
        "click-worker",
    }
    assert needed | ONE_SHOT == set(SERVICES)


@pytest.mark.parametrize("name", SERVICES)
def test_service_is_contained(name: str) -> None:
    service = SERVICES[name]

    user, _, group = service["user"].partition(":")
    assert int(user) > 0
    assert int(group) > 0
    assert service["cap_drop"] == ["ALL"]
    assert service["mem_limit"]
    assert service["restart"] in ("unless-stopped", "on-failure:3")
    assert ("healthcheck" in service) == (name not in ONE_SHOT)
    assert all(port.startswith("${BIND_ADDRESS:-127.0.0.1}:") for port in service.get("ports", []))


@pytest.mark.parametrize("name", SERVICES)
def test_dependencies_exist_and_can_meet_their_condition(name: str) -> None:
    for needed, how in SERVICES[name].get("depends_on", {}).items():
        healthy = "service_completed_successfully" if needed in ONE_SHOT else "service_healthy"
        assert how == {"condition": healthy}, needed


def test_images_are_pinned_to_a_full_version() -> None:
    images = [service["image"] for service in SERVICES.values()]
    for path in DOCKERFILES:
        images += re.findall(r"^FROM (\S+)", (REPOSITORY / path).read_text(), re.MULTILINE)
    assert len(images) == len(SERVICES) + len(DOCKERFILES)
    for image in images:
        assert re.fullmatch(r"[a-z-]+:\d+\.\d+(\.\d+)?(-[a-z]+)*", image), image
        assert "latest" not in image


def test_own_images_carry_the_version_of_the_project() -> None:
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
    own = [service["image"] for service in SERVICES.values() if "build" in service]
    assert {image.rpartition(":")[2] for image in own} == {version}


def test_no_secret_has_a_value_in_the_repository() -> None:
    for name in SERVICES:
        for variable, value in environment(name).items():
            if (
                IS_SECRET.search(variable)
                and value is not None
                and not value.endswith((".ini", "FabAuthManager"))
            ):
                assert re.fullmatch(r"\$\{\w+:\?[^}]+\}", value), variable
    for text in texts(COMPOSE):
        for credentials in re.findall(r"://([^/@\s]*)@", text):
            password = credentials.partition(":")[2]
            assert VARIABLE.fullmatch(password), credentials
    for variable, value in example_variables().items():
        assert not (IS_SECRET.search(variable) and value), variable


def test_env_example_names_exactly_what_the_compose_file_uses() -> None:
    used, handed_on = (
        used_variables(),
        {variable for name in SERVICES for variable, value in environment(name).items() if value is None},
    )
    given = example_variables()
    assert set(given) == set(used) | handed_on
    for variable, ways in used.items():
        operators = {operator for operator, _ in ways}
        assert operators in ({":?"}, {":-"}), f"{variable} must be required or have a default everywhere"
        if operators == {":-"}:
            assert {default for _, default in ways} == {given[variable]}, variable
        else:
            assert given[variable] == "", variable


def test_env_file_stays_out_of_git_and_out_of_the_images() -> None:
    assert ".env" in (REPOSITORY / ".gitignore").read_text().split()
    assert ".env" in (REPOSITORY / ".dockerignore").read_text().split()


def test_mounts_name_what_exists() -> None:
    made = "".join((REPOSITORY / path).read_text() for path in DOCKERFILES)
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source, target = re.sub(r"\$\{\w+:-([^}]+)\}", r"\1", volume).split(":")[:2]
            if source.startswith("."):
                assert (REPOSITORY / source).is_file()
                assert (IN_IMAGE / source).resolve() == Path(target)
            else:
                assert source in COMPOSE["volumes"]
                assert "build" not in service or f"{target} " in made.replace("\n", " "), target
        assert {mounted["source"] for mounted in service.get("configs", [])} <= set(COMPOSE["configs"])


def test_files_of_the_images_are_in_the_build_context() -> None:
    left_out = (REPOSITORY / ".dockerignore").read_text().split()
    named = set()
    for name in SERVICES:
        values = filter(None, environment(name).values())
        named |= {Path(value).relative_to(IN_IMAGE) for value in values if value.startswith(str(IN_IMAGE))}
    assert named == {Path("dags"), Path("mlflow/basic_auth.ini")}
    for path in (*named, Path("settings.toml"), Path("mlflow/gates.toml"), Path("sql"), Path("README.md")):
        assert (REPOSITORY / path).exists(), path
        assert path.parts[0] not in left_out


@pytest.mark.parametrize("path", DOCKERFILES)
def test_image_installs_the_project_and_runs_as_nobody_special(path: str) -> None:
    text = (REPOSITORY / path).read_text()
    service = next(s for s in SERVICES.values() if s.get("build", {}).get("dockerfile") == path)

    assert (REPOSITORY / service["build"]["context"]).resolve() == REPOSITORY
    arguments = set(re.findall(r"^ARG (\w+)", text, re.MULTILINE))
    assert set(service["build"]["args"]) == arguments
    assert re.findall(r"^USER (\S+)", text, re.MULTILINE) == [service["user"]]
    assert f"--uid {service['user'].partition(':')[0]} " in text
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (installed,) = re.findall(r'pip install --editable "\.\[([\w,]+)\]"', text)
    assert set(installed.split(",")) <= set(extras)
    assert "deploy" in installed.split(",")


@pytest.mark.parametrize("name", AIRFLOW)
def test_airflow_variables_are_options_of_the_installed_airflow(name: str) -> None:
    variables = {variable for variable in environment(name) if variable.startswith("AIRFLOW__")}
    assert variables
    assert variables <= airflow_options()


def test_variables_in_the_deployment_page_exist() -> None:
    page = (REPOSITORY / "docs" / "deployment.md").read_text()
    of_providers = ("AIRFLOW__CELERY__", "AIRFLOW__KUBERNETES_EXECUTOR__")  # which are not installed here
    named = {name for name in re.findall(r"\bAIRFLOW__\w+", page) if not name.startswith(of_providers)}
    assert named <= airflow_options()
    assert all(is_setting(name) for name in set(re.findall(r"\bTRIBUTARY_[A-Z_]+[A-Z]", page)))


def is_setting(variable: str) -> bool:
    """Tell whether a TRIBUTARY_ variable leads to a field of the settings."""
    model: object = Settings
    for name in variable.removeprefix("TRIBUTARY_").lower().split("__"):
        if not (isinstance(model, type) and issubclass(model, BaseModel) and name in model.model_fields):
            return False
        model = model.model_fields[name].annotation
    return True


@pytest.mark.parametrize("name", AIRFLOW)
def test_tributary_variables_are_settings(name: str) -> None:
    variables = [variable for variable in environment(name) if variable.startswith("TRIBUTARY_")]
    assert variables
    assert [variable for variable in variables if not is_setting(variable)] == []
    assert not is_setting("TRIBUTARY_SOURCE__NONSENSE")


def test_first_administrator_s_password_is_typed_not_an_argument() -> None:
    (created,) = [line for line in airflow_commands() if line[:2] == ["users", "create"]]
    assert "--password" not in created
    script = COMPOSE["configs"]["airflow-init"]["content"]
    assert re.search(
        r"printf '%s\\n%s\\n'( \"\$\$AIRFLOW_ADMIN_PASSWORD\"){2} \|\s+airflow users create", script
    )


def test_airflow_commands_and_auth_manager_are_those_of_the_installed_airflow(tmp_path: Path) -> None:
    manager = environment("airflow-scheduler")["AIRFLOW__CORE__AUTH_MANAGER"]
    if not has_distribution("apache-airflow-providers-fab"):
        message = "no apache-airflow-providers-fab: install the extra `deploy`"
        pytest.fail(message) if os.environ.get("CI") == "true" else pytest.skip(message)
    program = """
import importlib, json, sys
from airflow.api_fastapi.core_api.routes.public.monitor import monitor_router
from airflow.cli import cli_parser
module, _, name = sys.argv[1].rpartition(".")
getattr(importlib.import_module(module), name)
parser = cli_parser.get_parser()
for line in json.loads(sys.argv[2]):
    parser.parse_args(line)
print([route.path for route in monitor_router.routes])
"""
    ran = subprocess.run(
        [sys.executable, "-c", program, manager, json.dumps(airflow_commands())],
        env={**os.environ, "AIRFLOW_HOME": str(tmp_path), "AIRFLOW__CORE__AUTH_MANAGER": manager},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "/monitor/health" in ran.stdout
    assert len(airflow_commands()) == 6


def has_distribution(name: str) -> bool:
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def test_mlflow_command_and_variables_are_those_of_the_installed_mlflow() -> None:
    from mlflow import environment_variables
    from mlflow.cli import server

    program, group, *arguments = SERVICES["mlflow"]["command"]
    assert (program, group) == ("mlflow", server.name)
    options = {spelling: option for option in server.params for spelling in option.opts}
    given = dict(argument.split("=", 1) for argument in arguments)
    assert set(given) <= set(options)
    assert given["--app-name"] in options["--app-name"].type.choices

    known = {getattr(variable, "name", None) for variable in vars(environment_variables).values()}
    known |= {option.envvar for option in server.params}
    for name in SERVICES:
        variables = {variable for variable in environment(name) if variable.startswith("MLFLOW_")}
        assert variables - {"MLFLOW_DB_PASSWORD"} <= known, name


def test_mlflow_auth_file_has_the_keys_that_mlflow_reads() -> None:
    from mlflow.server.auth.config import AuthConfig

    package = Path(importlib.util.find_spec("mlflow").submodule_search_locations[0])
    shipped, ours = configparser.ConfigParser(), configparser.ConfigParser()
    shipped.read(package / "server" / "auth" / "basic_auth.ini")
    ours.read(REPOSITORY / "mlflow" / "basic_auth.ini")
    assert set(ours["mlflow"]) <= set(AuthConfig._fields)
    assert ours["mlflow"]["authorization_function"] == shipped["mlflow"]["authorization_function"]
    backend = environment("mlflow")["MLFLOW_BACKEND_STORE_URI"]
    assert ours["mlflow"]["database_uri"] == backend == "postgresql+psycopg2:///mlflow"


def test_health_checks_in_python_compile_and_ask_a_port_that_is_served() -> None:
    served = {"mlflow": "5000/health", "airflow-api-server": "8080/api/v2/monitor/health"}
    served["airflow-scheduler"] = "8974/health"
    for name, path in served.items():
        *_, program = SERVICES[name]["healthcheck"]["test"]
        ast.parse(program)
        assert f"http://127.0.0.1:{path}'" in program
    assert "--port=5000" in SERVICES["mlflow"]["command"]
    assert "8080" in SERVICES["airflow-api-server"]["command"]


def test_addresses_between_services_lead_to_services() -> None:
    addresses = {
        address
        for name in SERVICES
        for value in filter(None, environment(name).values())
        for address in re.findall(r"(?:://|@)([a-z][a-z0-9-]*):\d+", value)
    }
    assert addresses == {"airflow-api-server", "localhost", "mlflow", "postgres", "publish-hook", "redis"}
    assert addresses - {"localhost"} <= set(SERVICES)
    assert environment("mlflow")["PGHOST"] == "postgres"
    assert any("--allowed-hosts=mlflow:5000," in argument for argument in SERVICES["mlflow"]["command"])
