"""What the tests of the image share: a network of their own, the CA in it, and containers."""

import contextlib
import json
import os
import re
import sys
from pathlib import Path

import pytest

TEST = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TEST / "lib"), str(TEST / "fakes")]

from container import IMAGE, Container, podman  # noqa: E402
from loopback import enter_network_of_own  # noqa: E402
from pebble import Pebble  # noqa: E402
from reporting import logs_of, pytest_runtest_makereport  # noqa: E402, F401

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
    with contextlib.ExitStack() as cleanup:

        def make(**options):
            ca = cleanup.enter_context(Pebble(usual_ports=True, newer=True, **options))
            logs_of(request.node)["a CA of the test's own"] = ca.log
            return ca

        yield make


@pytest.fixture(name="new_container")
def fixture_new_container(request):
    """Makes containers, not started yet. In the end each has to vanish without a trace."""
    with contextlib.ExitStack() as cleanup:

        def make(ca=None, **options):
            container = cleanup.enter_context(Container(ca, **options))
            logs_of(request.node)[f"the container of {container.domain}"] = container.log
            return container

        yield make
