"""What the end-to-end tests share: the CA, and containers that must leave nothing behind."""

import sys
from pathlib import Path

import pytest

TEST = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TEST / "lib"), str(TEST / "fakes")]

from pebble import Pebble  # noqa: E402
from reporting import logs_of, making, pytest_runtest_makereport  # noqa: E402, F401
from stack import CERTBOT, NEWER_CERTBOT, PROGRAM, Stack  # noqa: E402


@pytest.fixture(scope="session", name="ca")
def fixture_ca():
    """The CA of all tests of one worker that do nothing to it."""
    assert PROGRAM.exists(), f"{PROGRAM} is missing: build it first"
    with Pebble() as ca:
        yield ca


@pytest.fixture(name="new_ca")
def fixture_new_ca(request):
    """Makes a CA of the test's own."""
    with making(request, Pebble, lambda _: "a CA of the test's own") as make:
        yield make


@pytest.fixture(name="new_stack")
def fixture_new_stack(request, ca):
    """Makes containers, not started yet. In the end each has to vanish without a trace."""
    with making(request, Stack, lambda stack: f"the container of {stack.domain}") as make:
        yield lambda of_ca=ca, **options: make(of_ca, **options)


@pytest.fixture(name="stack")
def fixture_stack(new_stack):
    """One container with usual settings, not started yet."""
    return new_stack()


@pytest.fixture(name="served", scope="module")
def fixture_served(request, ca):
    """One container with HTTPS that the tests of a file only look at; a file may have its own."""
    with Stack(ca) as stack:
        logs_of(request.node)["the container that the tests of this file share"] = stack.log
        stack.start().wait_until_settled()
        yield stack


@pytest.fixture(
    name="certbot",
    params=[CERTBOT, NEWER_CERTBOT],
    ids=["certbot of the machine", "certbot of the image"],
)
def fixture_certbot(request):
    """Program for a container's `certbot`: the test is run with the oldest and the newest one."""
    return request.param


# They take minutes: begun last, they would be waited for by idle cores.
LONG = (
    "test_ten_thousand_connections_leave_no_block_behind",
    "test_invariants_hold_whatever_fails",
    "test_ten_renewals_in_a_row",
    "test_fifty_rotations_under_load_are_not_noticed",
    "test_other_keys_are_noticed_before_an_order_and_taken_together",
)


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items):
    """
    Tests that only look at one container run in one process, so that it is made once. Long ones come
    first.
    """
    items.sort(key=lambda item: getattr(item, "originalname", None) not in LONG)
    for item in items:
        if "served" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group(f"{item.path.stem}-served"))
