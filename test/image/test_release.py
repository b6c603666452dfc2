"""deploy/release: what keeps a release from being made, and what one consists of.

Building, building again and testing have stand-ins here, in a repository of its own: test_reproducible.py builds
and compares, and `make test` is what runs this. Saving, loading and looking into the image are real.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from container import podman
from processes import environment
from stack import REPOSITORY

VERSION = f"0.0.{os.getpid()}"
NAME = f"localhost/cert-manager:{VERSION}"
CHANGELOG = f"""# Changelog

## [{VERSION}] - 2026-11-27

### Added

- What there is.

## [0.0.0] - 2026-11-26

- What was before.
"""

MAKEFILE = f"""VERSION := {VERSION}
test:
	@test ! -e tests-fail
	@echo "tested $$TEST_IMAGE"
"""

# Of the environment: what would have the image be another one than the commit's.
OTHERS = {"PACKAGES": "newest", "REVISION": "another"}

# The image that is there already, under another name.
BUILD = """#!/bin/sh
set -eu
test -d .git  # a clone
test -z "${PACKAGES:-}${REVISION:-}"
podman --runtime runc tag "$IMAGE" "$1"
podman --runtime runc image inspect --format '{{.Id}}' "$1"
"""

BUILD_AGAIN = """#!/bin/sh
test ! -e builds-differ
"""


class Sources:
    """A repository with one commit, whose folder is `path`."""

    def __init__(self, path, image):
        self.path, self.image = path, image
        self.made = path / f"build/release-{VERSION}"
        (path / "deploy").mkdir(parents=True)
        for name in ("release", "choose-engine"):
            shutil.copy(REPOSITORY / "deploy" / name, path / "deploy" / name)
        self.write("Makefile", MAKEFILE)
        self.write("CHANGELOG.md", CHANGELOG)
        self.write(".gitignore", "/build/\n")
        self.write("deploy/build-image", BUILD)
        self.write("deploy/check-reproducible", BUILD_AGAIN)
        self.git("init", "--quiet")
        self.commit()

    def write(self, name, text):
        (self.path / name).write_text(text)
        (self.path / name).chmod(0o755)

    def commit(self):
        self.git("add", "--all")
        who = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.test")
        self.git(*who, "commit", "--quiet", "--message=a commit")

    def git(self, *words):
        done = subprocess.run(
            ["git", "-C", self.path, *words], env=environment(), check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def release(self, *options):
        """(exit code, all that it says)"""
        done = subprocess.run(
            ["deploy/release", *options],
            cwd=self.path,
            env=environment(IMAGE=self.image, HOME=str(Path.home()), **OTHERS),
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return done.returncode, done.stdout

    def leftovers(self):
        return list(self.path.glob("build/*"))


@pytest.fixture(name="sources")
def fixture_sources(tmp_path, image):
    yield Sources(tmp_path / "sources", image)
    podman("rmi", NAME, check=False)


def refused(sources, *options):
    code, said = sources.release(*options)
    assert code == 1, said
    assert not sources.leftovers(), said
    return said


def test_a_tree_that_is_no_commits_is_refused(sources):
    sources.write("new.c", "")
    assert "?? new.c" in refused(sources)


def test_a_version_that_is_tagged_is_refused(sources):
    sources.git("tag", f"v{VERSION}")
    assert f"v{VERSION} is tagged already" in refused(sources)


@pytest.mark.parametrize(
    "heading",
    ["[Unreleased]", f"[{VERSION}]", f"[{VERSION}0] - 2026-11-27"],
    ids=["unreleased", "no day", "another version"],
)
def test_a_changelog_without_the_version_and_its_day_is_refused(sources, heading):
    sources.write("CHANGELOG.md", CHANGELOG.replace(f"[{VERSION}] - 2026-11-27", heading))
    sources.commit()
    assert f"no heading `## [{VERSION}] - YYYY-MM-DD`" in refused(sources)


def test_a_changelog_that_says_nothing_of_the_version_is_refused(sources):
    sources.write("CHANGELOG.md", f"## [{VERSION}] - 2026-11-27\n\n## [0.0.0] - 2026-11-26\n\n- What was.\n")
    sources.commit()
    assert f"nothing is said of {VERSION}" in refused(sources)


def test_everything_that_is_wrong_is_told_at_once(sources):
    sources.git("tag", f"v{VERSION}")
    sources.write("CHANGELOG.md", "")
    said = refused(sources, "--dry-run")
    assert "is tagged" in said and "no heading" in said and "M CHANGELOG.md" in said


def test_a_release_that_is_there_is_left_alone(sources):
    sources.made.mkdir(parents=True)
    code, said = sources.release()
    assert code == 1 and "is there already" in said
    assert list(sources.made.iterdir()) == []


def test_dry_run_does_nothing(sources):
    code, said = sources.release("--dry-run")
    assert code == 0 and sources.git("rev-parse", "HEAD") in said
    assert not sources.leftovers()


def test_builds_that_differ_leave_no_release(sources):
    sources.write("builds-differ", "")
    sources.commit()
    assert f"deploy/check-reproducible {NAME}: exit code 1" in refused(sources)


@pytest.mark.parametrize(
    "script", ["#!/bin/sh\nexit 3\n", "#!/bin/sh\necho built\n"], ids=["exit code", "no image"]
)
def test_a_build_that_fails_is_told_and_nothing_is_made(sources, script):
    sources.write("deploy/build-image", script)
    sources.commit()
    assert f"deploy/build-image {NAME}: exit code" in refused(sources)


def test_tests_that_fail_leave_no_release_unless_nobody_asks_them(sources):
    sources.write("tests-fail", "")
    sources.commit()
    assert "make test: exit code 2" in refused(sources)
    code, said = sources.release("--without-tests")
    assert code == 0, said
    assert json.loads((sources.made / "release.json").read_text())["tested"] is False


def test_what_a_release_consists_of(sources, image):
    code, said = sources.release()
    assert code == 0, said
    assert f"tested {NAME}" in said
    assert sources.leftovers() == [sources.made]
    assert {path.name for path in sources.made.iterdir()} == {
        f"cert-manager-{VERSION}.tar",
        f"cert-manager-{VERSION}.spdx.json",
        "release.json",
        "notes.md",
        "SHA256SUMS",
    }
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=sources.made, check=True)
    assert len((sources.made / "SHA256SUMS").read_text().splitlines()) == 4
    assert (sources.made / "notes.md").read_text() == "### Added\n\n- What there is.\n"

    facts = json.loads((sources.made / "release.json").read_text())
    there = json.loads(podman("image", "inspect", image).stdout)[0]
    assert facts.pop("built_with")
    assert facts == {
        "version": VERSION,
        "commit": sources.git("rev-parse", "HEAD"),
        "image_id": f"sha256:{there['Id']}",
        "layers": there["RootFS"]["Layers"],
        "labels": there["Config"]["Labels"],
        "tested": True,
    }
    bill = podman("run", "--rm", "--network=none", image, "cat", "/usr/share/sbom/cert-manager.spdx.json")
    assert (sources.made / f"cert-manager-{VERSION}.spdx.json").read_text() == bill.stdout
