"""Two or more things go wrong one after the other, while certificates come and go.

Whatever they are: within seconds the leaf that new connections get is the one that the last
certificate event names, nothing is ordered twice, and no event is made that is not needed.
"""

import shutil

import pki
import pytest
from loopback import wait_until
from rotation import SETTLED, LeafWatch, Rotation, assert_at_rest, assert_measured, serve
from test_replaced_pair import fixture_external, put_pair  # noqa: F401
from test_resilience import KILLED, kill_nginx

EVENT = "New TLS Certificate"
OTHER_LEAF = "ab" * 32


def assert_comes_to_rest(stack, leaf, key=None):
    stack.wait_for_leaf(lambda served: served == leaf, "the leaf is served")

    def is_committed():
        return not [*stack.state.glob("intent.json"), *stack.state.glob("previous-*")]

    wait_until(is_committed, "nothing is pending")
    assert_at_rest(stack, leaf, key)


def remove(folder):
    """At once, whoever writes there."""
    aside = folder.with_name(f"{folder.name}.removed")
    folder.rename(aside)
    shutil.rmtree(aside)


# Events of others


@pytest.mark.parametrize("payload", [OTHER_LEAF, "nonsense"], ids=["another leaf", "no leaf"])
def test_event_of_another_program_and_an_nginx_that_is_started_again(stack, payload):
    """A last event that names nothing is as fatal to verifiers as one that names another leaf."""
    rotation = Rotation(stack)
    leaf = serve(stack)
    stack.agent.emit(event=EVENT, payload=payload.encode().hex())
    stack.expected_trouble = KILLED
    mark = stack.log.mark()
    kill_nginx(stack)
    stack.log.wait_for(SETTLED, since=mark)
    assert_at_rest(stack, leaf)
    assert stack.agent.measured() == [*rotation.names, payload, *rotation.names]


# The folder in memory


@pytest.mark.parametrize("foreign_pair", [False, True], ids=["alone", "beside a foreign pair"])
def test_run_folder_is_removed_and_nginx_started_again(stack, foreign_pair):
    rotation = Rotation(stack)
    leaf = serve(stack)
    stack.expected_trouble = KILLED
    with LeafWatch(stack) as watch:
        remove(stack.folder["run_dir"])
        if foreign_pair:
            key = pki.new_key()
            stack.put_pair(rotation.authority.issue(stack.domain, key), key)
        mark = stack.log.mark()
        kill_nginx(stack)
        stack.log.wait_for(SETTLED, since=mark)
        watch.wait_for(leaf)
    assert set(watch.seen) <= {leaf, None}
    assert_comes_to_rest(stack, leaf)
    assert_measured(stack, rotation.names)


def test_run_folder_is_removed_and_another_certificate_comes(stack):
    rotation = Rotation(stack)
    serve(stack)
    remove(stack.folder["run_dir"])
    rotation.put()
    assert_comes_to_rest(stack, rotation.leaf)
    assert_measured(stack, rotation.names)
    wait_until(stack.status, "the status is told again")


# A pair of somebody else


def test_pair_that_comes_just_before_nginx_dies_is_not_lost(external):
    """Nothing takes its place before it was judged: the volume may have the only copy of its key."""
    stack, authority = external, pki.Authority()
    first_key, second_key = pki.new_key(), pki.new_key()
    _, first = put_pair(stack, authority, first_key)
    serve(stack)
    stack.expected_trouble = KILLED
    _, second = put_pair(stack, authority, second_key)
    kill_nginx(stack)
    assert_comes_to_rest(stack, second, second_key)
    assert_measured(stack, [pki.sha256(first), pki.sha256(second)])
