"""packages.lock and the base image: what differs is told, with what there is to do. No network is needed to
find out."""

import subprocess

import pytest
from container import podman
from stack import REPOSITORY

INSTALL = REPOSITORY / "deploy/install-locked"


@pytest.fixture(name="install")
def fixture_install(base, tmp_path):
    """Has deploy/install-locked install what a lock says, in a container of the base image."""

    def install(lines):
        lock = tmp_path / "packages.lock"
        lock.write_text("\n".join(lines) + "\n")
        options = ("--rm", "--network=none", f"--volume={lock}:/lock:ro", f"--volume={INSTALL}:/install:ro")
        return podman("run", *options, base["Id"], "sh", "/install", "/lock", "runtime", check=False)

    return install


@pytest.fixture(scope="module", name="installed")
def fixture_installed(base):
    """A lock that names what the base has."""
    form = "base ${Package}=${Version}\\n"
    return podman("run", "--rm", "--network=none", base["Id"], "dpkg-query", "-W", "-f", form).stdout.splitlines()


def test_base_that_is_as_locked_needs_nothing(install, installed):
    answer = install([*installed, "build gcc=1", "python python3-venv=1"])
    assert answer.returncode == 0, answer.stderr


def test_newer_base_is_told_and_nothing_is_downgraded(install, installed):
    answer = install([line.split("=")[0] + "=0" if "libssl3t64=" in line else line for line in installed])
    assert answer.returncode != 0
    assert "packages.lock: the base image is newer: libssl3t64=3" in answer.stderr
    assert 'Run "make lock-packages"' in answer.stderr


def test_package_of_the_base_that_is_not_locked_is_told(install, installed):
    answer = install([line for line in installed if not line.startswith("base tzdata=")])
    assert answer.returncode != 0
    assert "it does not name these, which the base image has: tzdata=" in answer.stderr
    assert 'Run "make lock-packages"' in answer.stderr


def test_where_debian_is_not_reached_the_lock_is_not_blamed(install, installed):
    answer = install([*installed, "runtime nginx=0.0"])
    assert answer.returncode != 0
    assert "install-locked: apt-get cannot read Debian's package lists" in answer.stderr
    assert "packages.lock:" not in answer.stderr


def test_engine_that_is_unknown_is_told():
    done = subprocess.run(
        [REPOSITORY / "deploy/choose-engine"],
        env={"PATH": "/usr/bin:/bin", "ENGINE": "kaniko"},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr == "choose-engine: ENGINE=kaniko is neither docker nor buildah\n"
