"""What the tests of the image share: a network of their own, the CA in it, and containers."""

import json
import os
import re
import sys
from pathlib import Path

import pytest

TEST = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TEST / "lib"), str(TEST / "fakes")]

from backends import Backends  # noqa: E402
from container import DEVELOPMENT, IMAGE, Container, hosts_of, podman  # noqa: E402
from loopback import enter_network_of_own, wait_until  # noqa: E402
from pebble import Pebble  # noqa: E402
from reporting import making, pytest_runtest_makereport  # noqa: E402, F401

# Before anything has threads, which would stay in the machine's. Workers of xdist are started by a process
# that has left it already.
left = enter_network_of_own()
os.environ.setdefault("NETWORK_OF_MACHINE", f"/proc/{os.getpid()}/fd/{left}")


def pytest_collection_modifyitems(items):
    """A build takes minutes: begun last, it would be waited for by idle cores."""
    items.sort(key=lambda item: item.path.name != "test_reproducible.py")


@pytest.fixture(scope="session", name="image", autouse=True)
def fixture_image():
    """The image's name; it is there."""
    found = podman("image", "exists", IMAGE, check=False)
    assert found.returncode == 0, f"there is no image {IMAGE}: build it with make test-image"
    return IMAGE


@pytest.fixture(scope="session", name="about")
def fixture_about(image):
    """What the engine knows of the image."""
    return json.loads(podman("image", "inspect", image).stdout)[0]


@pytest.fixture(scope="session", name="base")
def fixture_base(about):
    """What the engine knows of its base image, which its labels name."""
    name, digest = (about["Labels"][f"org.opencontainers.image.base.{part}"] for part in ("name", "digest"))
    repository = re.sub(r":[\w.-]+$", "", name)
    return json.loads(podman("image", "inspect", f"{repository}@{digest}").stdout)[0]


@pytest.fixture(scope="session", name="ca")
def fixture_ca():
    with Pebble(usual_ports=True, newer=True) as ca:
        yield ca


@pytest.fixture(name="new_ca")
def fixture_new_ca(request):
    """Makes a CA of the test's own."""
    with making(request, Pebble, lambda _: "a CA of the test's own") as make:
        yield lambda **options: make(usual_ports=True, newer=True, **options)


@pytest.fixture(name="new_container")
def fixture_new_container(request):
    """Makes containers, not started yet. In the end each has to vanish without a trace."""
    with making(request, Container, lambda container: f"the container of {container.domain}") as make:
        yield make


@pytest.fixture(name="backends", scope="module")
def fixture_backends():
    with Backends() as backends:
        yield backends


@pytest.fixture(name="deployment")
def fixture_deployment(new_container, backends):
    """Makes containers in development mode with vLLM behind them, serving."""

    def make(**variables):
        variables = {"UPSTREAM_HOST": "vllm"} | DEVELOPMENT | variables
        container = new_container(variables=variables, options=hosts_of(backends)).start()
        container.wait_for_https()
        wait_until(lambda: container.ask("/v1/models").status == 200, "vLLM is known")
        return container

    return make
