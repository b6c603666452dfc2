"""What can go wrong with a container, brought about for whoever has to read of it.

SCENES are those of docs/OPERATIONS.md by the heading that they belong to. Each gives the container as
soon as the fault shows.
"""

import os
import signal

import pki
from loopback import LoopbackAddress, wait_until
from operator_shell import usual
from rotation import serve

KILLED = r"exited: cert-manager \(terminated by SIGKILL; not expected\)"
DOMAIN = "app.example.com"
SCENES = {}


class Scene:
    """`new_ca` and `new_stack` make what has to vanish in the end; names are those of Pebble's DNS."""

    def __init__(self, new_ca, new_stack, folder):
        self._new_ca, self._new_stack, self._folder = new_ca, new_stack, folder
        self.files = {}  # what the operator has brought, by name
        self.ca = new_ca(usual_ports=True, has_door=True)

    def stack(self, *, settings=None, variables=None, looks_up=False, volume="size=4m", **options):
        """Not started yet. It has a volume, and the rest is in memory.

        One that `looks_up` names asks the CA's DNS.
        """
        binds = options.pop("binds", {})
        if looks_up:
            settings = {"acme.resolve_max_tries": 60, "acme.check_caa": True} | (settings or {})
            binds |= self._resolver()
        return usual(
            self._new_stack(
                self.ca,
                domain=DOMAIN,
                settings=settings,
                variables=variables,
                volume=volume,
                binds=binds,
                **{"parent": "/dev/shm"} | options,
            )
        )

    def _resolver(self):
        hosts, resolver = self._folder / "hosts", self._folder / "resolv.conf"
        hosts.write_text("127.0.0.1 localhost\n")
        resolver.write_text(f"nameserver {self.ca.address}\noptions timeout:1 attempts:1\n")
        return {"/etc/hosts": hosts, "/etc/resolv.conf": resolver}

    def put_pair(self, stack, age_days=0, key=None):
        """One that the volume has from before; 90 days."""
        key = key or stack.tls_key
        chain = pki.Authority().issue(stack.domain, key, start=-age_days * pki.DAY)
        stack.put_pair(chain, key)


def scene(heading):
    def add(make):
        assert heading not in SCENES
        SCENES[heading] = make
        return make

    return add


def wait_for_failure(stack, text):
    stack.log.wait_for(rf"(ERROR|WARNING) - .*{text}", 40)


@scene("How it looks when all is well")
def all_is_well(scene):
    stack = scene.stack(looks_up=True)
    serve(stack)
    return stack


@scene("Change settings")
def change_settings(scene):
    return all_is_well(scene)


@scene("Renew now")
def renew_now(scene):
    return all_is_well(scene)


@scene("Let machines look")
def machines_look(scene):
    return all_is_well(scene)


@scene("See more in the log")
def see_more(scene):
    return all_is_well(scene)


@scene("Port 80 is closed, or the name leads elsewhere")
def port_80_is_closed(scene):
    stack = scene.stack()
    nobody = LoopbackAddress()
    nobody.close()
    scene.ca.point(stack.domain, nobody)
    stack.start()
    wait_for_failure(stack, "challenge failed")
    return stack


@scene("The name does not resolve yet")
def name_does_not_resolve(scene):
    stack = scene.stack(looks_up=True)
    scene.ca.break_dns(stack.domain)
    stack.start()
    wait_for_failure(stack, "does not resolve")
    return stack


@scene("CAA records forbid it")
def caa_forbids(scene):
    stack = scene.stack(looks_up=True)
    scene.ca.add_caa("example.com", "issue", ";")
    stack.start()
    wait_for_failure(stack, "caa")
    stack.log.wait_for("HTTPS serves", 40)
    return stack


@scene("The guest agent is not there")
def agent_is_not_there(scene):
    stack = scene.stack()
    stack.start(with_agent=False)
    wait_for_failure(stack, "guest agent")
    return stack


@scene("A setting cannot be used")
def setting_cannot_be_used(scene):
    stack = scene.stack(variables={"NGINX_MAX_BODY_SIZE": "20 MB", "LOG_LEVEL": "verbose"})
    stack.start()
    assert stack.wait_for_exit() == 78
    return stack


@scene("The daemon does not run")
def daemon_does_not_run(scene):
    """Settings were spoilt while it ran, and it was killed: it cannot come back."""
    stack = scene.stack()
    serve(stack)
    stack.config.write_text(stack.config.read_text() + "domian: app.example.com\n")
    stack.expected_trouble = KILLED
    os.kill(stack.daemon().pid, signal.SIGKILL)
    stack.log.wait_for("stays stopped", 40)
    wait_until(lambda: stack.daemon() is None, "the daemon has ended")
    return stack


@scene("Clients do not trust the certificate")
def certificate_is_not_trusted(scene):
    stack = scene.stack(variables={"LETSENCRYPT_STAGING": "true"})
    serve(stack)
    return stack


@scene("502: the application is not reached")
def upstream_is_missing(scene):
    stack = scene.stack(looks_up=True, variables={"UPSTREAM_HOST": "app.internal"})
    scene.ca.break_dns("app.internal")
    serve(stack)
    return stack


@scene("503 over HTTPS: nginx refuses the configuration")
def configuration_is_refused(scene):
    fragment = "location /api/ { proxy_pass http://backend.internal:9000; }"
    stack = scene.stack(looks_up=True, variables={"EXTRA_LOCATIONS": fragment})
    scene.ca.break_dns("backend.internal")
    serve(stack)
    return stack


@scene("Not attested")
def not_attested(scene):
    stack = scene.stack()
    stack.agent.start()
    stack.agent.reboot(version="0.6.0")
    stack.start(with_agent=False)
    stack.log.wait_for("HTTPS serves .*NOT attested", 40)
    return stack


@scene("Rate limited")
def rate_limited(scene):
    stack = scene.stack(settings={"acme.limit_failures": "2/1h", "acme.rehearsal": False})
    scene.ca.break_dns(stack.domain)
    stack.start()
    wait_until(lambda: stack.status().get("next", "").endswith("is used up"), "the limit holds", 40)
    return stack


@scene("The CA does not answer")
def renewal_fails(scene):
    stack = scene.stack()
    scene.put_pair(stack, age_days=70)
    scene.ca.shut()
    serve(stack)
    wait_for_failure(stack, r"\(attempt 2")
    return stack


@scene("The disk is full")
def disk_is_full(scene):
    stack = scene.stack(volume="size=16k")
    scene.put_pair(stack, age_days=70)
    serve(stack)
    wait_for_failure(stack, "No space left")
    return stack


@scene("The container starts over and over")
def restart_loop(scene):
    settings = {"acme.limit_certificates": "2/7d"}
    stack = scene.stack(volume=None, settings=settings, parent="/tmp")
    for number in (1, 2):
        stack.start()
        wait_until(lambda number=number: scene.ca.orders() == number, f"order {number} is made", 40)
        stack.cut_power()
    stack.start()
    stack.log.wait_for("no order before", 40)
    return stack


@scene("A pair of somebody else is on the volume")
def foreign_pair(scene):
    stack = scene.stack()
    scene.put_pair(stack, key=pki.new_key())
    serve(stack)
    return stack


@scene("The guest agent derives another key than before")
def key_epoch_changed(scene):
    stack = scene.stack()
    scene.put_pair(stack)
    stack.agent.start()
    stack.agent.rotate_keys(epoch="2")
    serve(stack)
    return stack


@scene("The key is compromised")
def key_is_compromised(scene):
    stack = scene.stack()
    serve(stack)
    return stack


@scene("The clock is wrong")
def clock_is_wrong(scene):
    stack = scene.stack()
    scene.put_pair(stack, age_days=-2)
    stack.start()
    wait_for_failure(stack, "clock|valid from")
    return stack


@scene("Certificates from elsewhere")
def certificate_from_elsewhere(scene):
    stack = scene.stack()
    scene.put_pair(stack, age_days=70)
    scene.ca.shut()
    serve(stack)
    chain = pki.Authority("Another CA").issue(stack.domain, stack.tls_key)
    scene.files["fullchain.pem"] = chain
    return stack
