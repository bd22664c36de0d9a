"""The files that start Housing elsewhere are valid, and every command in them is one that we have.

No container is built or run here; what is checked is what can be without.
"""

import re

import kubernetes_validate
import pytest
import typer
import yaml

from housing_lib import cli
from housing_lib.settings import PROJECT, Settings

COMPOSE = (PROJECT / "serve" / "compose.yaml").read_text()
KUBERNETES = (PROJECT / "serve" / "kubernetes.yaml").read_text()
MANIFESTS = list(yaml.safe_load_all(KUBERNETES))
SERVICES = yaml.safe_load(COMPOSE)["services"]


def commands():
    """Every program of our image with its arguments, in both files."""
    ours = {name: one for name, one in SERVICES.items() if one["image"] == "housing"}
    for name, service in ours.items():
        yield name, [*service.get("entrypoint", ["housing"]), *service.get("command", [])]
    for manifest in MANIFESTS:
        for container in containers(manifest):
            program = container.get("command", ["housing"])
            yield container["name"], [*program, *container.get("args", [])]


def containers(manifest):
    return manifest.get("spec", {}).get("template", {}).get("spec", {}).get("containers", [])


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda one: one["metadata"]["name"])
def test_each_kubernetes_manifest_follows_its_schema(manifest):
    kubernetes_validate.validate(manifest, "1.34", strict=True)


def test_the_compose_file_follows_the_compose_specification():
    import compose_spec

    merged = yaml.safe_dump(yaml.safe_load(COMPOSE))  # without anchors
    assert set(compose_spec.PyCompose.from_yaml(merged).services) == set(SERVICES)


@pytest.mark.parametrize(("name", "command"), list(commands()))
def test_every_command_and_option_exists(name, command):
    program, *arguments = command
    if program == "python":
        return  # code of its own
    found = group(program)
    verb = arguments[0]
    if hasattr(found, "commands"):
        found, arguments = found.commands[verb], arguments[1:]
    known = {option for parameter in found.params for option in all_of(parameter)}
    asked = {one for one in arguments if re.match(r"--?[a-z]", one)}
    assert asked <= known


def all_of(parameter):
    return [*parameter.opts, *parameter.secondary_opts]


def group(program):
    """The command line of a program."""
    if program == "housing":
        return typer.main.get_command(cli.app)
    if program == "mlflow":
        from mlflow.cli import cli as mlflow

        return mlflow
    from dask.cli import cli as dask
    from distributed.cli import dask_scheduler, dask_worker

    dask.add_command(dask_scheduler.main, "scheduler")
    dask.add_command(dask_worker.main, "worker")
    return dask


def test_every_setting_that_they_name_is_one_of_ours():
    known = {f"HOUSING_{name.upper()}" for name in Settings.model_fields}
    container = (PROJECT / "serve" / "Containerfile").read_text()
    assert set(re.findall(r"HOUSING_[A-Z_]+", COMPOSE + KUBERNETES + container)) <= known


def test_what_the_image_copies_is_there():
    lines = (PROJECT / "serve" / "Containerfile").read_text().splitlines()
    for line in lines:
        for name in line.split()[1:-1] if line.startswith("COPY") else []:
            assert (PROJECT / name).exists(), name


def test_services_are_found_under_the_names_that_others_call():
    names = {one["metadata"]["name"] for one in MANIFESTS if one["kind"] == "Service"}
    assert set(re.findall(r"//(housing-[a-z]+):", KUBERNETES)) <= names
    assert set(re.findall(r"(?:[a-z]://|@)([a-z]+)(?::\d|/)", COMPOSE)) <= set(SERVICES)


def test_no_secret_stands_in_them():
    for name, value in re.findall(r"(\w*(?:PASSWORD|SECRET|KEYS?)\w*): (\S+)", COMPOSE):
        assert value.startswith("${"), name


def test_no_secret_and_no_district_of_an_installation_enters_an_image():
    ignored = (PROJECT / "serve" / "Containerfile.dockerignore").read_text().split()
    last_taken = max(place for place, rule in enumerate(ignored) if rule.startswith("!"))
    assert {"**/.env", "data/grown", "data/serving"} <= set(ignored[last_taken:])
