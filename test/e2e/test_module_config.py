"""ekm-module/config under nginx's own configure.

Linking nginx takes its sources, which Debian's package nginx-dev does not have; configure works without.
"""

import os
import re
import subprocess
from pathlib import Path

import pytest
from bare_nginx import REPOSITORY

SOURCES = Path(os.environ.get("NGINX_ROOT", "/")).resolve() / "usr/share/nginx/src"
MODULES = ["ngx_http_ekm_module", "ngx_http_live_chain_module"]


@pytest.fixture(name="configure")
def fixture_configure(tmp_path):
    """Runs configure; its exit code and what it says."""
    for entry in SOURCES.iterdir():
        (tmp_path / entry.name).symlink_to(entry)

    def configure(*options):
        command = ["./configure", "--builddir=objs", *options]
        run = subprocess.run(
            command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120
        )
        return run.returncode, run.stdout

    return configure


def test_filter_of_a_linked_module_comes_after_the_one_that_would_drop_it(configure, tmp_path):
    """nginx sets its modules up in this order, and its last filter keeps no other one."""
    code, text = configure("--with-http_ssl_module", f"--add-module={REPOSITORY}/ekm-module")
    assert code == 0, text
    order = re.findall(r"&(\w+),", (tmp_path / "objs/ngx_modules.c").read_text())
    assert set(MODULES) < set(order)
    last = order.index("ngx_http_header_filter_module")
    assert last < order.index("ngx_http_live_chain_module") < order.index("ngx_http_copy_filter_module")


def test_nginx_without_tls_is_refused(configure):
    code, text = configure(f"--add-dynamic-module={REPOSITORY}/ekm-module")
    assert code != 0 and "need --with-http_ssl_module" in text
