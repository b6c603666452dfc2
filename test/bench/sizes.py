"""What has to be stored and loaded."""

import json
import subprocess

from container import IMAGE, podman
from processes import environment
from stack import BUILD, PROGRAM

MB = 1_000_000


def loaded(path):
    """Bytes of its segments: all but symbols and what debuggers read."""
    said = subprocess.run(["size", path], env=environment(), capture_output=True, text=True, check=True)
    return int(said.stdout.splitlines()[1].split()[3])


def measure(figures):
    figures.part("sizes")
    modules = sorted(BUILD.glob("ngx_*.so"))
    for path in (PROGRAM, *modules):
        figures.add(path.name, path.stat().st_size / MB, "MB")
        figures.add("  loaded", loaded(path) / MB, "MB")
    if podman("image", "exists", IMAGE, check=False).returncode:
        print(f"no image {IMAGE}: `make image IMAGE={IMAGE}` makes it")
        return
    image = json.loads(podman("image", "inspect", IMAGE).stdout)[0]
    figures.add("image, unpacked", image["Size"] / MB, "MB")
