"""Two or more things go wrong one after the other, while certificates come and go.

Whatever they are: within seconds the leaf that new connections get is the one that the last
certificate event names, nothing is ordered twice, and no event is made that is not needed.
"""

import pytest
from rotation import SETTLED, Rotation, assert_at_rest, serve
from test_resilience import KILLED, kill_nginx

EVENT = "New TLS Certificate"
OTHER_LEAF = "ab" * 32


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
