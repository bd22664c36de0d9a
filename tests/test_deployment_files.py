"""The files that start Housing elsewhere are valid, and every command in them is one that we have.

No container is built or run here; what is checked is what can be without.
"""

import re

import click
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
    """Every program with its arguments, in both files."""
    for name, service in SERVICES.items():
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


@pytest.mark.parametrize(("name", "command"), commands())
def test_every_command_and_option_exists(name, command):
    program, *arguments = command
    if program in ("python", "server"):
        return  # code of its own, and a program of another image
    found = group(program)
    verb = arguments[0]
    if isinstance(found, click.Group):
        found, arguments = found.commands[verb], arguments[1:]
    known = {option for parameter in found.params for option in parameter.opts}
    asked = {one for one in arguments if re.match(r"--?[a-z]", one)}
    assert asked <= known | {one for one in asked if one.startswith("--no-")}


def group(program):
    """The command line of a program."""
    if program == "housing":
        return typer.main.get_command(cli.app)
    if program == "mlflow":
        from mlflow.cli import cli as mlflow

        return mlflow
    from dask.__main__ import cli as dask
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
    assert set(re.findall(r"(?://|@)([a-z]+)[:/]", COMPOSE)) <= set(SERVICES)


def test_no_secret_stands_in_them():
    for name, value in re.findall(r"(\w*(?:PASSWORD|SECRET|KEYS?)\w*): (\S+)", COMPOSE):
        assert value.startswith("${"), name
