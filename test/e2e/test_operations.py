"""docs/OPERATIONS.md is true: each fault that it goes through is brought about, and whatever is typed
there prints what it shows.
"""

import shutil
import tarfile

import pki
import pytest
from documentation import Prints, assert_logged, commands_of, markdown_blocks
from loopback import wait_until
from operator_shell import Operator
from rotation import serve
from scenes import SCENES, Scene
from stack import IS_ROOT, REPOSITORY

pytestmark = pytest.mark.skipif(not IS_ROOT, reason="mounts, and ports of the image, need root")

PAGE = REPOSITORY / "docs/OPERATIONS.md"
# Languages of blocks that a scene goes with; the others are for test_documentation.py.
SHOWN = ("console", "log")
PATIENCE_S = 20


def blocks_by_heading():
    found = {}
    for block in markdown_blocks(PAGE):
        if block.language in SHOWN:
            found.setdefault(block.heading, []).append(block)
    return found


@pytest.mark.parametrize("heading", SCENES)
def test_what_is_shown_is_what_is_seen(new_ca, new_stack, tmp_path, heading):
    tmp_path.chmod(0o755)
    scene = Scene(new_ca, new_stack, tmp_path)
    stack = SCENES[heading](scene)
    with Operator(stack) as operator:
        for name, text in scene.files.items():
            (operator.folder / name).write_text(text)
        for block in blocks_by_heading()[heading]:
            if block.language == "log":
                assert_logged(block, lambda: operator.as_in_image(stack.log.text()).splitlines())
                continue
            for command in commands_of(block):
                shown = Prints(command, operator)
                try:
                    wait_until(shown.again, "it prints what is shown", PATIENCE_S)
                except AssertionError:
                    raise AssertionError(shown.difference()) from None


def test_every_fault_is_brought_about():
    assert set(SCENES) == set(blocks_by_heading())


def test_lost_volume_costs_one_order_and_a_copy_of_it_none(ca, stack):
    mark = ca.log.mark()
    first = serve(stack)
    (backup,) = [block for block in markdown_blocks(PAGE) if block.text.startswith("tar ")]
    with Operator(stack) as operator:
        code, output = operator.run(backup.text)
        assert code == 0, output
        copy = (operator.folder / "tls.tgz").read_bytes()
    stack.stop()

    lose_volume(stack)
    second = serve(stack)
    assert second != first and pki.same_key(second, stack.tls_key) and ca.orders(mark) == 2
    stack.stop()

    lose_volume(stack)
    (stack.root / "tls.tgz").write_bytes(copy)
    with tarfile.open(stack.root / "tls.tgz") as archive:
        archive.extractall(stack.tls)
    assert serve(stack) == first and ca.orders(mark) == 2


def lose_volume(stack):
    shutil.rmtree(stack.tls)
    stack.tls.mkdir(mode=0o755)
