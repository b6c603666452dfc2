"""Runs the fuzz targets, as many at a time as there are cores, and tells what came of it in a table.

    run.py BUILD SECONDS [TARGET…]

Each target runs for so many seconds. What it finds new ways through the code with is kept in
BUILD/found/TARGET, and is where the next run begins; inputs that something does not hold for are in
BUILD/failures/, and the exit code is 1. Then nginx judges a sample of what the target "routes" has
accepted.
"""

import concurrent.futures
import os
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "lib"))

# Of each target: its dictionary, and the longest input in bytes. Both may be left out.
OPTIONS = {
    "acme": ("json", 8192),
    "agent": ("json", 8192),
    "caa": (None, 4096),
    "certbot": ("certbot", 8192),
    "chain": ("der", 8192),
    "config": ("yaml", 16384),
    "control": ("http", 16384),
    "environment": ("yaml", 4096),
    "events": ("json", 16384),
    "ledger": ("json", 16384),
    "pair": ("pem", 16384),
    "routes": ("nginx", 8192),
    "state": ("json", 4096),
    "templates": ("nginx", 8192),
    "texts": (None, 1024),
}
# For one input on the clock, where others are at work, too; of the processor it has one second.
TIMEOUT_S = 60
MEMORY_MB, ALLOCATION_MB = 2048, 512
# Names and lines in reports: of binutils, since clang's own symbolizer is a package of its own.
SANITIZER = f"external_symbolizer_path={shutil.which('addr2line')}"
# The wrapper of strstr() measures the whole text each time, which makes loops of it slow by themselves.
SANITIZER_OF_TIME = f"{SANITIZER}:intercept_strstr=0"
REPEATED_BYTES, REPEATED_PER_SECOND, REPEATED_MAX = 256 * 1024, 1, 100
NGINX_SAMPLES_PER_SECOND, NGINX_SAMPLES_MAX = 4, 400
SHOWN_LINES = 60


class Run:
    """One target, from its start to what its log says."""

    def __init__(self, build, target, seconds):
        self.target, self.program = target, build / "fuzz" / target
        self.log = build / "logs" / f"{target}.log"
        self.found, self.failures = build / "found" / target, build / "failures"
        self.seeds = [HERE / "corpus" / target, build / "seeds" / target]
        self.seconds, self.code, self.took = seconds, None, 0.0

    def run(self):
        for folder in (self.log.parent, self.found, self.failures):
            folder.mkdir(parents=True, exist_ok=True)
        begun = time.monotonic()
        with self.log.open("w") as log:
            self.code = self._fuzz(log) or self._repeat(log)
        self.took = time.monotonic() - begun
        return self

    def _fuzz(self, log):
        dictionary, longest = OPTIONS.get(self.target, (None, 4096))
        return self._call(
            log,
            SANITIZER,
            f"-max_total_time={self.seconds}",
            f"-max_len={longest}",
            "-print_final_stats=1",
            *([f"-dict={HERE / 'dictionaries' / dictionary}"] if dictionary else []),
            self.found,
            *(seeds for seeds in self.seeds if seeds.is_dir()),
        )

    def _repeat(self, log):
        """A sample of all inputs, long: none of them takes a time that grows with the square."""
        inputs = [path for folder in (self.found, *self.seeds) for path in folder.glob("*")]
        count = min(len(inputs), REPEATED_MAX, REPEATED_PER_SECOND * self.seconds)
        size = {"FUZZ_REPEAT": str(REPEATED_BYTES)}
        return self._call(log, SANITIZER_OF_TIME, *random.sample(inputs, count), **size)

    def _call(self, log, sanitizer, *arguments, **variables):
        return subprocess.call(
            [
                self.program,
                f"-timeout={TIMEOUT_S}",
                f"-rss_limit_mb={MEMORY_MB}",
                f"-malloc_limit_mb={ALLOCATION_MB}",
                f"-artifact_prefix={self.failures}/{self.target}-",
                *arguments,
            ],
            env=os.environ | {"ASAN_OPTIONS": sanitizer} | variables,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )

    def stat(self, name):
        found = re.search(rf"^stat::{name}: *(\d+)$", self.log.read_text(errors="replace"), re.M)
        return int(found[1]) if found else 0

    def edges(self):
        found = re.findall(r" cov: (\d+) ", self.log.read_text(errors="replace"))
        return int(found[-1]) if found else 0

    def row(self):
        inputs = len(list(self.found.iterdir()))
        return (
            f"{self.target:<12} {self.stat('number_of_executed_units'):>11,} "
            f"{self.stat('accepted'):>11,} {self.edges():>6} {inputs:>6} {self.took:>6.0f}  "
            + ("ok" if self.code == 0 else "FAILED")
        )

    def tell_failure(self):
        lines = self.log.read_text(errors="replace").splitlines()
        begin = next(
            (i for i, line in enumerate(lines) if "does not hold" in line or "ERROR: " in line),
            max(0, len(lines) - SHOWN_LINES),
        )
        print(f"\n---- {self.target}: {self.log}")
        print("\n".join(line[:400] for line in lines[begin : begin + SHOWN_LINES]))
        kept = re.findall(r"Test unit written to (\S+)", "\n".join(lines))
        if kept:
            print(f"\nonce more: {self.program} {kept[-1]}")
        elif re.search(r"^Running: ", "\n".join(lines), re.M):
            running = re.findall(r"^Running: (.*)$", "\n".join(lines), re.M)[-1]
            print(f"\nonce more: FUZZ_REPEAT={REPEATED_BYTES} {self.program} {running}")


def run_all(build, seconds, targets):
    # The longest first is of no use: all take the same time.
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda target: Run(build, target, seconds).run(), targets))


# ---- nginx ----


def judge_by_nginx(build, samples):
    """What nginx says of rendered settings that were accepted: texts of those that it refuses."""
    import rendering

    refused, judged = [], 0
    with rendering.Rendering() as machine:
        folder = machine.folder / "rendered"
        (folder / "webroot").mkdir(parents=True)
        machine.put_pair(folder / "tls")
        machine.put_secret(folder / "run")
        corpora = [build / "found/routes", build / "seeds/routes", HERE / "corpus/routes"]
        subprocess.run(
            [build / "fuzz/routes", "-runs=0", *(path for path in corpora if path.is_dir())],
            env=os.environ | {"FUZZ_RENDERED": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
        )
        sites = sorted(folder.glob("*.site"))
        for site in random.sample(sites, min(samples, len(sites))):
            shutil.copy(site, machine.output / rendering.SITE)
            shutil.copy(site.with_suffix(".include"), machine.output / rendering.INCLUDE)
            complaint = machine.complaint()
            judged += 1
            if complaint:
                refused.append(f"{complaint}\n{site.read_text(errors='replace')}")
    return judged, refused


def main(build, seconds, targets):
    targets = targets or sorted(path.name for path in (build / "fuzz").iterdir())
    runs = run_all(build, seconds, targets)
    print(f"{'target':<12} {'executions':>11} {'accepted':>11} {'edges':>6} {'inputs':>6} {'s':>6}")
    for run in runs:
        print(run.row())
    failed = [run for run in runs if run.code != 0]
    for run in failed:
        run.tell_failure()
    if "routes" in targets and not any(run.target == "routes" for run in failed):
        samples = min(NGINX_SAMPLES_MAX, NGINX_SAMPLES_PER_SECOND * seconds)
        judged, refused = judge_by_nginx(build, samples)
        print(f"nginx -t took {judged - len(refused)} of {judged} configurations out of routes")
        if refused:
            failures = build / "failures"
            failures.mkdir(exist_ok=True)
            (failures / "nginx").write_text("\n\n".join(refused))
            print(refused[0][:4000])
        failed = failed or refused
    return 1 if failed else 0


sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))
