"""What is in the image, and what is not: looked at from outside, in its mounted file system."""

import json
import os
import re
import stat
import subprocess
from datetime import datetime
from pathlib import Path

import pytest
from container import podman
from processes import environment
from stack import REPOSITORY

LABEL = "org.opencontainers.image."
MOST_ABOVE_BASE = 150_000_000
# What is there of their makers' releases, and its programs.
PYTHON = {"certbot": ("certbot",), "supervisor": ("supervisord", "supervisorctl")}
BILL = "usr/share/sbom/cert-manager.spdx.json"
# Our own machine code.
OURS = (
    "usr/bin/cert-manager",
    "usr/lib/nginx/modules/ngx_http_ekm_module.so",
    "usr/lib/nginx/modules/ngx_http_live_chain_module.so",
)
# No program that compiles, installs from elsewhere, or fetches.
NO_PROGRAMS = {
    *("as", "c++", "cc", "clang", "cpp", "g++", "gcc", "ld", "make", "pkg-config", "tcc"),
    *("pip", "pip3", "easy_install", "git", "curl", "wget", "nc", "telnet", "ssh", "sudo"),
}
EMPTY = ("tmp", "var/tmp", "run", "var/log", "var/cache/apt", "var/lib/apt/lists", "usr/include", "usr/src")
DOCUMENTATION = ("usr/share/man", "usr/share/info", "usr/share/locale", "usr/share/groff", "usr/share/lintian")


@pytest.fixture(scope="module", name="root")
def fixture_root(image):
    """The image's root folder."""
    yield Path(podman("image", "mount", image).stdout.strip())
    podman("image", "unmount", image)


@pytest.fixture(scope="module", name="files")
def fixture_files(root):
    """Each path of the image, relative to the root, with its lstat. Devices are the engine's."""
    found = {}
    for folder, folders, names in os.walk(root):
        for name in [*folders, *names]:
            path = Path(folder, name)
            found[str(path.relative_to(root))] = path.lstat()
    return {path: status for path, status in found.items() if not path.startswith("dev/")}


@pytest.fixture(scope="module", name="dpkg")
def fixture_dpkg(root):
    """What dpkg knows of each of Debian's packages: its fields by name."""
    text = (root / "var/lib/dpkg/status").read_text()
    packages = [dict(re.findall(r"^(\S+): (.*)$", entry, re.M)) for entry in text.split("\n\n") if entry.strip()]
    assert {package["Status"] for package in packages} == {"install ok installed"}
    return {package["Package"]: package for package in packages}


@pytest.fixture(scope="module", name="debian")
def fixture_debian(dpkg):
    """Name and version of each of Debian's packages."""
    return {name: package["Version"] for name, package in dpkg.items()}


@pytest.fixture(scope="module", name="python")
def fixture_python(root):
    """Name and version of each package in the environments of Python, as they say themselves."""
    texts = [file.read_text() for file in root.glob("opt/*/lib/python3*/site-packages/*.dist-info/METADATA")]
    return {
        key_of(re.search(r"^Name: (.+)$", text, re.M)[1]): re.search(r"^Version: (.+)$", text, re.M)[1]
        for text in texts
    }


# Packages.


def test_debians_packages_are_those_of_the_lock_and_no_others(debian, about):
    locked = dict(
        line.split(" ", 1)[1].split("=", 1)
        for line in (REPOSITORY / "packages.lock").read_text().splitlines()
        if line.startswith(("base ", "runtime "))
    )
    if about["Labels"].get("cert-manager.packages") == "newest":
        assert debian.keys() == locked.keys(), "other packages depend on others: make lock-packages"
        pytest.skip("Debian has replaced packages of the lock, and the image has the newest: make lock-packages")
    assert debian == locked


def test_packages_of_python_are_those_of_the_locks_and_no_others(python):
    lock = "".join((REPOSITORY / f"{name}.lock").read_text() for name in PYTHON)
    assert python == {
        key_of(name): version for name, version in re.findall(r"^([\w.-]+)==(\S+)", lock, re.M)
    }
    assert "pip" not in python and "setuptools" not in python


def test_bill_of_materials_names_every_package_once_and_nothing_else(root, debian, python):
    packages = [
        (package.get("externalRefs", [{}])[0].get("referenceLocator", ""), package)
        for package in json.loads((root / BILL).read_text())["packages"]
    ]
    named = {kind: {} for kind in ("pkg:deb", "pkg:pypi", "")}
    for purl, package in packages:
        kind = purl.split("/")[0]
        key = key_of(package["name"]) if kind == "pkg:pypi" else package["name"]
        assert key not in named[kind], f"{key} is named twice"
        named[kind][key] = package["versionInfo"]
    assert named == {"pkg:deb": debian, "pkg:pypi": python, "": {"cert-manager": version_of_sources()}}


def test_bill_of_materials_is_spdx_2_3(root, about):
    """The fields that the specification demands of a JSON document, and their forms."""
    bill = json.loads((root / BILL).read_text())
    assert bill["spdxVersion"] == "SPDX-2.3" and bill["dataLicense"] == "CC0-1.0"
    assert bill["SPDXID"] == "SPDXRef-DOCUMENT" and bill["name"]
    assert re.fullmatch(r"[a-z][a-z0-9+.-]*:[^#\s]+", bill["documentNamespace"])
    assert bill["creationInfo"]["created"] == about["Labels"][f"{LABEL}created"]
    assert all(re.match(r"(Person|Organization|Tool): .", creator) for creator in bill["creationInfo"]["creators"])

    names = [package["SPDXID"] for package in bill["packages"]]
    assert all(re.fullmatch(r"SPDXRef-[A-Za-z0-9.-]+", name) for name in names)
    assert len(set(names)) == len(names)
    for package in bill["packages"]:
        assert package["name"] and package["downloadLocation"] and package["versionInfo"]
        assert package["filesAnalyzed"] is False  # then no sum of all files is demanded
        assert re.match(r"NOASSERTION$|(Person|Organization): .", package["supplier"])
        for reference in package.get("externalRefs", []):
            assert reference["referenceCategory"] == "PACKAGE-MANAGER"
            assert reference["referenceType"] == "purl"
            assert re.fullmatch(
                r"pkg:(deb/debian|pypi)/[a-z0-9.+-]+@[\w.~%+-]+(\?arch=\w+&distro=debian-\d+)?",
                reference["referenceLocator"],
            )
    relations = {
        (each["spdxElementId"], each["relationshipType"], each["relatedSpdxElement"])
        for each in bill["relationships"]
    }
    main, *others = names
    assert relations == {("SPDXRef-DOCUMENT", "DESCRIBES", main)} | {(main, "CONTAINS", name) for name in others}


# The configuration of the image.


def test_labels_say_what_it_is_and_what_it_was_made_of(about, base):
    labels = dict(about["Labels"])
    labels.pop("cert-manager.packages", None)
    assert all(key.startswith(LABEL) for key in labels), labels
    values = {key.removeprefix(LABEL): value for key, value in labels.items()}
    assert values.pop("title") == "cert-manager"
    assert values.pop("description") and values.pop("vendor") == "Concrete Security"
    assert values.pop("licenses") == "Apache-2.0"
    assert values.pop("version") == version_of_sources()
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?|unknown", values.pop("revision"))
    created = values.pop("created")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", created) and about["Created"] == created
    assert re.fullmatch(r"[\w.-]+(/[\w.-]+)+(:[\w.-]+)?", values.pop("base.name"))
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", values.pop("base.digest"))
    assert about["RootFS"]["Layers"][: len(base["RootFS"]["Layers"])] == base["RootFS"]["Layers"]
    assert not values, "labels that nobody expects"


def test_configuration_is_that_of_the_contract(about):
    config = about["Config"]
    assert config["Cmd"][:2] == ["/usr/bin/cert-manager", "prestart"]
    assert config["Cmd"][-3:] == ["/usr/bin/supervisord", "-c", "/etc/supervisor/conf.d/supervisord.conf"]
    assert config["ExposedPorts"].keys() == {"80/tcp", "443/tcp"}
    assert config["StopSignal"] == "SIGTERM"
    assert about["Healthcheck"]["Test"] == ["CMD", "/usr/bin/cert-manager", "health"]
    # Nothing that a deployment would have to know of: its volumes are its own, and no variable is set.
    assert {"Entrypoint", "Volumes", "User"}.isdisjoint(config)
    assert [variable.split("=")[0] for variable in config["Env"]] == ["PATH"]


def test_nothing_says_when_it_was_built(about, base, root, files):
    """All that was added has the time of the sources, also where packages write one into files. The image
    of `make test-image` has another day than any build."""
    created, of_base = (
        datetime.fromisoformat(image["Created"][:19] + "+00:00").timestamp() for image in (about, base)
    )
    assert not [path for path, status in files.items() if status.st_mtime > of_base and status.st_mtime != created]
    days = dict(re.findall(r"^(\w+):[^:]*:(\d+):", (root / "etc/shadow").read_text(), re.M))
    assert int(days["certbot"]) == created // 86400
    assert int(days["root"]) <= of_base // 86400
    assert {entry["created"] for entry in about["History"][len(base["History"]) :]} == {about["Created"]}


def test_it_is_small_above_its_base(about, base, root):
    above = about["Size"] - base["Size"]
    assert above <= MOST_ABOVE_BASE, f"{above / 1e6:.1f} MB above the base; the largest folders:\n" + "\n".join(
        largest(root, "usr/lib/*", "usr/share/*", "usr/bin", "usr/sbin", "opt/*/lib/python3*/site-packages/*", "var/*")
    )


# Files.


def test_nothing_is_left_of_building(files):
    left = [path for path in files if path.startswith(tuple(f"{folder}/" for folder in EMPTY))]
    left += [path for path in files if re.fullmatch(r"etc/[^/]+-|var/lib/dpkg/.*-old|var/lib/dpkg/lock.*", path)]
    left += [path for path in files if path.startswith(("build", "out", "root/.cache"))]
    left += [path for path in files if re.search(r"\.(a|la|o|deb|whl|dpkg-\w+|pyc\.\d+)$", path)]
    left += [path for path in files if path.endswith("policy-rc.d")]
    assert not left


def test_neither_compiler_nor_package_manager_of_python_is_there(files):
    programs = {
        Path(path).name: path
        for path, status in files.items()
        if re.match(r"(usr/(local/)?s?bin|usr/games|opt/\w+/bin)/", path) and not stat.S_ISDIR(status.st_mode)
    }
    found = {
        path
        for name, path in programs.items()
        if name in NO_PROGRAMS or re.match(r"(.*-linux-gnu-.*|pip3?[.\d]*)$|gcc-|clang-", name)
    }
    found |= {path for path in files if re.search(r"/(pip|ensurepip)$", path)}
    assert not found
    assert {path for path in files if re.match(r"opt/\w+/bin/", path)} == {
        f"opt/{folder}/bin/{name}"
        for folder, programs in PYTHON.items()
        for name in (*programs, "python", "python3", "python3.13")
    }


def test_of_documentation_the_licences_are_there(root, files, dpkg):
    others = [
        path
        for path, status in files.items()
        if path.startswith(tuple(f"{folder}/" for folder in DOCUMENTATION))
        and not stat.S_ISDIR(status.st_mode)
        and Path(path).name != "locale.alias"
    ]
    others += [
        path
        for path, status in files.items()
        if path.startswith("usr/share/doc/") and stat.S_ISREG(status.st_mode) and Path(path).name != "copyright"
    ]
    assert not others
    # One for each source package: of those packages that share one, some have a link to another's.
    sources = {name: package.get("Source", name).split()[0] for name, package in dpkg.items()}
    told = {source for name, source in sources.items() if f"usr/share/doc/{name}/copyright" in files}
    assert not set(sources.values()) - told
    assert (root / "usr/share/doc/cert-manager/copyright").read_bytes() == (REPOSITORY / "LICENSE").read_bytes()


def test_nobody_becomes_another_user_by_running_a_program(root, files):
    assert not [path for path, status in files.items() if stat.S_ISREG(status.st_mode) and status.st_mode & 0o6000]
    capable = [path for path in files if "security.capability" in os.listxattr(root / path, follow_symlinks=False)]
    assert not capable


def test_only_root_can_change_what_is_there(files):
    changeable = [
        f"{status.st_mode & 0o7777:o} {status.st_uid}:{status.st_gid} {path}"
        for path, status in files.items()
        if not stat.S_ISLNK(status.st_mode)
        and (status.st_uid != 0 or status.st_mode & 0o002 or (status.st_mode & 0o020 and status.st_gid != 0))
        and path not in ("tmp", "var/tmp", "var/mail")
    ]
    assert not changeable


def test_accounts_have_no_password_and_no_shell(root):
    fields = [line.split(":") for line in (root / "etc/passwd").read_text().splitlines()]
    assert [entry[0] for entry in fields if entry[2] == "0"] == ["root"]
    assert {entry[6] for entry in fields if entry[0] in ("certbot", "www-data", "nobody")} == {"/usr/sbin/nologin"}
    assert all(re.match(r"[^:]+:[*!]", line) for line in (root / "etc/shadow").read_text().splitlines())
    certbot = next(entry for entry in fields if entry[0] == "certbot")
    assert certbot[5] == "/nonexistent" and 100 <= int(certbot[2]) < 1000


def test_paths_of_the_contract_are_there(root, files):
    assert {path for path in files if path.startswith("app/")} == {
        "app/nginx_conf",
        *(f"app/nginx_conf/{file.name}" for file in (REPOSITORY / "nginx_conf").glob("*.tmpl")),
    }
    for folder in ("etc/nginx/ssl", "acme-challenge", "etc/cert-manager"):
        assert stat.S_ISDIR(files[folder].st_mode) and files[folder].st_mode & 0o777 == 0o755
        assert not list((root / folder).iterdir())
    assert os.readlink(root / "etc/nginx/conf.d/default.conf") == "/run/cert-manager/default.conf"
    for name in ("nginx.conf", "conf.d/default.conf"):
        assert f"etc/nginx/{name}" in files
    assert (root / "etc/supervisor/conf.d/supervisord.conf").read_bytes() == (
        REPOSITORY / "supervisord.conf"
    ).read_bytes()


# Python.


def test_byte_code_is_there_and_is_not_looked_at_twice(root, files):
    """Each module has it, of the kind that is not compared with its source (PEP 552): a container whose root
    file system is read-only starts as fast as any other, and no time stamp is in it."""
    without, other = [], []
    for path in files:
        if path.startswith(("opt/", "usr/lib/python3")) and path.endswith(".py"):
            code = root / Path(path).parent / "__pycache__" / f"{Path(path).stem}.cpython-313.pyc"
            if not code.exists():
                without.append(path)
            elif code.read_bytes()[4:8] != b"\1\0\0\0":
                other.append(path)
    assert not without and not other
    sources = {path for path in files if path.endswith(".py")}
    orphans = [
        path
        for path in files
        if path.endswith(".pyc")
        and str(Path(path).parents[1] / (Path(path).name.removesuffix(".cpython-313.pyc") + ".py")) not in sources
    ]
    assert not orphans


def test_certbot_runs_as_its_user_who_can_change_nothing(image, python):
    options = ("--rm", "--network=none", "--user=certbot", "--read-only", "--cap-drop=ALL")
    look = "certbot --version; find / -xdev -writable ! -type l ! -path '/dev/*' 2>/dev/null || true"
    answer = podman("run", *options, "--health-interval=disable", image, "sh", "-c", look)
    version, *writable = answer.stdout.splitlines()
    assert version == f"certbot {python['certbot']}"
    # /proc and the like are other file systems; what the engine mounts as temporary is writable anyway.
    assert set(writable) <= {"/tmp", "/var/tmp"}


# Machine code.


def test_our_machine_code_is_hardened(root):
    for path in OURS:
        text = readelf(root / path, "--wide", "--file-header", "--program-headers", "--dynamic", "--notes")
        kind = re.search(r"Type: +(.*)", text)[1]
        # An executable that is loaded anywhere, as a library is.
        assert kind.startswith("DYN"), f"{path}: {kind}"
        assert not path.startswith("usr/bin/") or re.search(r"FLAGS_1\).*\bPIE\b", text), f"{path}: no PIE"
        assert "GNU_RELRO" in text and re.search(r"FLAGS_1\).*\bNOW\b", text), f"{path}: no full RELRO"
        assert re.search(r"GNU_STACK .* RW +0x", text), f"{path}: a stack that can be run"
        assert not re.search(r"LOAD .* RWE ", text), f"{path}: code that can be changed"
        assert not re.search(r"\((RPATH|RUNPATH|TEXTREL)\)", text), f"{path}: text relocations or an RPATH"
        assert os.uname().machine != "x86_64" or "SHSTK" in text, f"{path}: no shadow stack"
        assert "debug_info" not in readelf(root / path, "--wide", "--sections"), f"{path}: debug information"
        symbols = readelf(root / path, "--wide", "--dyn-syms")
        assert "__stack_chk_fail" in symbols, f"{path}: no stack protector"
    assert len(set(re.findall(r"\b__\w+_chk\b", readelf(root / OURS[0], "--wide", "--dyn-syms")))) >= 5, (
        "no _FORTIFY_SOURCE"
    )


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="an instruction of x86-64")
def test_each_function_of_ours_is_a_place_to_jump_to(root, tmp_path):
    """-fcf-protection: what is reached through a pointer begins with endbr64."""
    for path in OURS:
        code = tmp_path / "text"
        subprocess.run(["objcopy", "-O", "binary", "-j", ".text", root / path, code], check=True)
        assert code.read_bytes().count(b"\xf3\x0f\x1e\xfa") >= 10, path


def test_no_stack_can_be_run_and_every_library_is_there(root, files):
    """Of all machine code of the image."""
    programs = []
    for path, status in files.items():
        if stat.S_ISREG(status.st_mode) and status.st_size > 64:
            with open(root / path, "rb") as file:
                if file.read(4) == b"\x7fELF":
                    programs.append(path)
    assert len(programs) > 100
    text = readelf(*(root / path for path in programs), "--wide", "--program-headers", "--dynamic")
    assert not re.findall(r"GNU_STACK .* RWE .*", text)
    libraries = {Path(path).name for path in files}
    assert set(re.findall(r"\(NEEDED\) +Shared library: \[(.+?)\]", text)) <= libraries


def key_of(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def version_of_sources():
    return re.search(r"^VERSION := (\S+)$", (REPOSITORY / "Makefile").read_text(), re.M)[1]


def readelf(*arguments):
    # Objects for the kernel's virtual machine, say, are none of its kinds: it warns.
    done = subprocess.run(
        ["readelf", *arguments],
        env=environment(LC_ALL="C"),
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert done.stdout, done.stderr
    return done.stdout


def largest(root, *patterns):
    folders = [path for pattern in patterns for path in root.glob(pattern)]
    answer = subprocess.run(
        ["du", "-sk", *folders], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    sizes = sorted((line.split("\t") for line in answer.stdout.splitlines()), key=lambda size: -int(size[0]))
    return [f"{int(size) / 1000:7.1f} MB  /{Path(path).relative_to(root)}" for size, path in sizes[:15]]
