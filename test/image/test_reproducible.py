"""Two builds from the same inputs are the same image, bit for bit."""

import os
import subprocess

from container import IMAGE
from processes import environment
from stack import REPOSITORY

PASSED_ON = ("BASE", "ENGINE", "EXTRA_ROOTS", "SNAPSHOT", "http_proxy", "https_proxy", "no_proxy")


def test_a_second_build_under_other_circumstances_gives_the_same_image():
    """The image that all tests here are about is the first of the two. Packages come over the network of
    the machine, which these tests have left."""
    variables = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    done = subprocess.run(
        ["nsenter", f"--net={os.environ['NETWORK_OF_MACHINE']}", REPOSITORY / "deploy/check-reproducible", IMAGE],
        env=environment(**{"ENGINE": "buildah", "HOME": os.environ["HOME"]} | variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
