"""Libraries of the tests, preloaded into the daemon of a container and into nothing else."""

import re
import subprocess
from functools import cache

from stack import BUILD, PROGRAM


def preload(stack, *names, **variables):
    """From its next start on. A variable that is None or empty is left out."""
    variables["LD_PRELOAD"] = " ".join(
        [*_before_others(), *(str(BUILD / f"test/{name}.so") for name in names)]
    )
    text = ",".join(f'{name}="{value}"' for name, value in variables.items() if value)

    def alter():
        conf, section = stack.supervisord_conf, "[program:cert-manager]\n"
        before, found, behind = conf.read_text().partition(section)
        assert found
        conf.write_text(f"{before}{section}environment={text}\n{behind}")

    stack.alter_image = alter


def is_sanitized():
    """Whether the program is a build with sanitizers."""
    return bool(_before_others())


@cache
def _before_others():
    """A sanitizer's own library refuses to come later."""
    command = ["ldd", PROGRAM]
    linked = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    sanitizer = re.search(r"=> (\S*/libasan\.so\S*)", linked)
    return [sanitizer[1]] if sanitizer else []
