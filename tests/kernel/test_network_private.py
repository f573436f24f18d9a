"""``network("private")``: the world is reached, nobody else is, and the host stays as it was.

On a host of our own, see :mod:`worlds`: one that forwards, one that does not, and without root.
"""

import json
import os
import signal
from pathlib import Path

import pytest
from owners import comes_true
from worlds import HOST, OUTSIDE, World, nobody

from pycontain.kernel import nftables
from pycontain.kernel.links import Links
from pycontain.runtime import probe

pytestmark = pytest.mark.root

# What owners of these tests begin with.
BEGIN = f"""
import json, os, socket, sys
from pathlib import Path
from pycontain import Container
HOST = Container("host:")
PRIVATE = HOST.network("private")
TRY = '''
import socket, sys
socket.setdefaulttimeout(float(sys.argv[3]))
try:
    with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as s: print(s.recv(99).decode(), end="")
except OSError as error:
    print(type(error).__name__, end="")
'''
def tried(running, address, port, patience=0.25):
    return running.exec("python3", "-c", TRY, address, str(port), str(patience), check=True).stdout
def say(**found): print(json.dumps(found))
OUTSIDE, THE_HOST = {OUTSIDE!r}, {HOST!r}
"""


def without_pasta():
    return probe.find_program("pasta") is None


WAYS = ["forwards", "pasta", "rootless"]


@pytest.fixture(scope="module", params=WAYS)
def host(request):
    """A host, and with which rights an owner runs on it."""
    if request.param != "forwards" and without_pasta():
        pytest.skip("pasta is not there")
    uid = nobody() if request.param == "rootless" else None
    if request.param == "rootless" and uid is None:
        pytest.skip("nobody can not read this checkout")
    with World(forwards=request.param == "forwards") as world:
        world.uid = uid
        yield world


@pytest.fixture(scope="module")
def router():
    """A host that forwards, for what is the same on every one."""
    with World(forwards=True) as world:
        world.uid = None
        yield world


def on(host, code, **options):
    return json.loads(host.run(BEGIN + code, uid=host.uid, **options))


def state_of_host():
    with Links() as links:
        forwarding = Path("/proc/sys/net/ipv4/ip_forward").read_text().strip()
        return (
            sorted(links.names()),
            sorted(links.routes()),
            sorted(links.addresses()),
            nftables.tables(),
            forwarding,
        )


def test_the_world_is_reached_and_nothing_else(host):
    """One owner for all of it, since each costs half a second."""
    before = host.look(state_of_host)
    found = on(
        host,
        """
with PRIVATE.start("sleep", "100") as one, PRIVATE.start("sleep", "100") as other:
    link = other._wired.links[0]
    everywhere = socket.create_server(("0.0.0.0", 8000))
    inside = other.listen(9000, "0.0.0.0")
    say(
        outside=tried(one, OUTSIDE, 7, 5),
        host=tried(one, THE_HOST, 8000),
        gateway=tried(one, link.bridge.gateway, 8000),
        other=tried(one, link.address, 9000),
        loopback=tried(one, "127.0.0.1", 8000),
        names=one.exec("ls", "/sys/class/net").stdout.split(),
        run=PRIVATE.run("python3", "-c", TRY, OUTSIDE, "7", "5").stdout,
        user=PRIVATE.user("1234:1234" if os.getuid() == 0 else "0").read_only().run("python3", "-c", TRY, OUTSIDE, "7", "5").stdout,
        without_init=PRIVATE.init(False).run("python3", "-c", TRY, OUTSIDE, "7", "5").stdout,
    )
    for each in (everywhere, inside): each.close()
""",
    )
    assert found == {
        "outside": HOST,  # the outside sees the host's address
        "host": "TimeoutError",
        "gateway": "TimeoutError",
        "other": "TimeoutError",
        "loopback": "ConnectionRefusedError",
        "names": ["eth0", "lo"],
        "run": HOST,
        "user": HOST,
        "without_init": HOST,
    }
    assert comes_true(lambda: host.look(state_of_host) == before)


def test_a_published_port_leads_to_a_program_that_listens_on_its_network_alone(router):
    found = on(
        router,
        """
with PRIVATE.publish(9000).start("sleep", "100") as running:
    address = running._wired.links[0].address
    with running.listen(9000, address) as server, socket.create_connection(running.address(9000)) as client:
        inside, peer = server.accept()
        inside.sendall(b"here")
        say(got=client.recv(9).decode(), peer=peer[0] == address)
        inside.close()
""",
    )
    assert found == {"got": "here", "peer": True}


LOOKUP = """
import socket
found = PRIVATE.run("python3", "-c", "import socket; print(socket.gethostbyname('some.example'))").stdout.strip()
"""


def test_a_name_server_outside_is_asked_by_the_container_itself(router):
    found = on(
        router,
        LOOKUP + "say(found=found, file=PRIVATE.run('cat', '/etc/resolv.conf').stdout)",
        resolver=f"# ours\nnameserver {OUTSIDE}\nsearch example.org\noptions ndots:2\n",
    )
    assert found == {
        "found": "203.0.113.9",
        "file": f"nameserver {OUTSIDE}\nsearch example.org\noptions ndots:2\n",
    }


def test_a_resolver_at_an_address_of_the_host_is_behind_our_rules_so_the_owner_asks(router):
    assert asked_of_the_host(router, HOST) == {"found": "203.0.113.9", "file": "nameserver 127.0.0.11\n"}


def test_a_resolver_on_the_hosts_loopback_is_asked_by_the_owner(host):
    """As systemd-resolved and dnsmasq are: in another network namespace nobody reaches 127.0.0.53."""
    assert asked_of_the_host(host, "127.0.0.53") == {
        "found": "203.0.113.9",
        "file": "nameserver 127.0.0.11\n",
    }


def asked_of_the_host(host, where):
    """What a container finds with a name server of the host at *where*."""
    return on(
        host,
        f"""
import threading, os
names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
names.bind(({where!r}, 53))
sys.path.insert(0, {os.path.dirname(__file__)!r})
from worlds import answer_to
def serve():
    while True:
        try: question, peer = names.recvfrom(512)
        except OSError: return
        names.sendto(answer_to(question), peer)
threading.Thread(target=serve, daemon=True).start()
{LOOKUP}
say(found=found, file=PRIVATE.run("cat", "/etc/resolv.conf").stdout)
names.close()
""",
        resolver=f"nameserver {where}\n",
    )


def test_other_name_servers_and_hosts_are_given(router):
    found = on(
        router,
        """
given = PRIVATE.dns("192.0.2.1", "2001:db8::1").hosts({"db.example": "198.51.100.7"})
say(resolver=given.run("cat", "/etc/resolv.conf").stdout,
    hosts=given.run("tail", "-n", "1", "/etc/hosts").stdout,
    asked=given.run("python3", "-c", "import socket; print(socket.gethostbyname('db.example'))").stdout)
""",
    )
    assert found == {
        "resolver": "nameserver 192.0.2.1\nnameserver 2001:db8::1\n",
        "hosts": "198.51.100.7\tdb.example\n",
        "asked": "198.51.100.7\n",
    }


def test_the_hosts_network_is_shared_when_asked(host):
    """Loopback and interfaces are the host's; /sys shows them, and can not be written."""
    found = on(
        host,
        """
with socket.create_server(("127.0.0.1", 8000)) as server, HOST.network("host").start("sleep", "100") as running:
    names = running.exec("ls", "/sys/class/net").stdout.split()
    import threading
    thread = threading.Thread(target=lambda: [server.accept()[0].close()])
    thread.start()
    say(
        loopback=tried(running, "127.0.0.1", 8000),
        outside=tried(running, OUTSIDE, 7, 5),
        names=names,
        written=HOST.network("host").run("sh", "-c", "echo 1 > /sys/class/net/up0/mtu").ok,
        groups=HOST.network("host").run("ls", "/sys/fs/cgroup").stdout,
    )
    thread.join()
""",
    )
    assert found == {"loopback": "", "outside": HOST, "names": ["lo", "up0"], "written": False, "groups": ""}


def test_starts_leave_no_address_behind(router):
    """The addresses of a bridge are given back."""
    found = on(
        router,
        """
for _ in range(10): PRIVATE.run("true")
with PRIVATE.start("sleep", "10") as running:
    bridge = running._wired.links[0].bridge
    say(taken=len(bridge._taken))
""",
    )
    assert found == {"taken": 4}


def test_what_a_killed_owner_leaves_is_swept_by_the_next():
    """The kernel removes the table and the links, the next owner the bridge."""
    with World(forwards=True) as host:
        before = host.look(state_of_host)
        owner = host.start(
            BEGIN
            + """
import os
from pycontain.runtime.engine import engine
with PRIVATE.start("sleep", "1000") as running:
    running.exec("true")
    print(os.getpid(), flush=True)
    zygote = next(int(l.split()[1]) for l in Path(f"/proc/self/fdinfo/{engine().pidfd}").read_text().splitlines() if l.startswith("Pid:"))
    print(zygote, flush=True)
    running.wait()
"""
        )
        with owner:
            pids = [int(owner.stdout.readline()), int(owner.stdout.readline())]
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            for pid in reversed(pids):
                os.kill(pid, signal.SIGKILL)
            owner.wait()
        assert comes_true(lambda: "pyv" not in host.look(state_of_host))
        assert "pyc" in host.look(state_of_host)
        assert "pycontain-" not in host.look(state_of_host)
        host.run("from pycontain import Container\nContainer('host:').run('true')")
        assert comes_true(lambda: host.look(state_of_host) == before)


def test_without_a_way_out_the_reason_is_said():
    with World(forwards=False) as host:
        said = host.run(
            BEGIN
            + """
import os
os.environ["PATH"] = "/nonexistent"
from pycontain.runtime import probe
probe.find_program = lambda name: None
try:
    PRIVATE.run("true")
except Exception as error:
    print(type(error).__name__, error, *error.__notes__)
"""
        )
        assert said.startswith("HostUnsupported ")
        assert "forward" in said
        assert "apt-get install passt" in said


def test_the_walls_outlive_the_porter(router):
    """Who made the rules may be killed: the owner holds them, and the next container gets a bridge of its own."""
    found = on(
        router,
        """
from pycontain.kernel import nftables
from pycontain.runtime.engine import engine
import signal, time
def porters():
    zygote = next(l.split()[1] for l in Path(f"/proc/self/fdinfo/{engine().pidfd}").read_text().splitlines() if l.startswith("Pid:"))
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try: name, _, rest = Path(f"/proc/{pid}/stat").read_text().partition("(")[2].rpartition(")")
        except OSError: continue
        if name == "pycontain-porte" and rest.split()[1] == zygote and rest.split()[0] != "Z": yield int(pid)
with PRIVATE.start("sleep", "100") as one, socket.create_server(("0.0.0.0", 8000)) as server:
    gateway = one._wired.links[0].bridge.gateway
    (porter,) = porters()
    os.kill(porter, signal.SIGKILL)
    while list(porters()): time.sleep(0.01)
    walls = [tried(one, gateway, 8000), tried(one, OUTSIDE, 7, 5)]
    try: PRIVATE.run("true")
    except Exception as error: said = type(error).__name__
    say(walls=walls, said=said, again=PRIVATE.run("python3", "-c", TRY, OUTSIDE, "7", "5").stdout)
""",
    )
    assert found == {"walls": ["TimeoutError", HOST], "said": "SandboxError", "again": HOST}
    assert comes_true(lambda: "pyc" not in router.look(state_of_host))


@pytest.mark.skipif(without_pasta(), reason="pasta is not there")
def test_where_another_firewall_drops_what_is_forwarded_pasta_leads_out(router):
    """As where Docker is: a chain of its own at the hook that drops by default."""
    found = on(
        router,
        """
from pycontain.kernel import nftables
from pycontain.kernel.netlink import CREATE, NETFILTER, Netlink, attribute
class Foreign(nftables.Table):
    def __init__(self):
        self.name, self._netlink = "filter", Netlink(NETFILTER)
        kind, flags, chain = self._chain("forward", "filter", 0)
        drop = chain.replace(attribute(5, nftables._be(1)), attribute(5, nftables._be(0)))
        self._commit([(nftables._NEWTABLE, CREATE, attribute(1, "filter") + attribute(2, nftables._be(2))), (kind, flags, drop)])
foreign = Foreign()
say(droppers=nftables.forward_droppers(), out=PRIVATE.run("python3", "-c", TRY, OUTSIDE, "7", "5").stdout)
foreign.close()
""",
    )
    assert found == {"droppers": ["inet filter forward"], "out": HOST}
