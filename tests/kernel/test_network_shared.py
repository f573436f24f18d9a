"""``Network``: containers that find each other, and nobody else.

On hosts of our own, see :mod:`worlds`. What several tests ask of one network is asked by one owner.
"""

import json
import os
import signal

import pytest
from owners import comes_true
from test_network_private import BEGIN, HOST, state_of_host, without_pasta
from worlds import World, nobody

pytestmark = pytest.mark.root

NETWORKS = (
    BEGIN
    + """
import threading
from pycontain import Network
def serve(running, port=80):
    # Answer with the peer's address, at every address of the container.
    server = running.listen(port, "0.0.0.0")
    def answer():
        while True:
            try: client, peer = server.accept()
            except OSError: return
            with client: client.sendall(peer[0].encode())
    threading.Thread(target=answer, daemon=True).start()
    return server
def idle(container): return container.start("sleep", "1000")
def hosts(running): return running.exec("tail", "-n", "+4", "/etc/hosts", check=True).stdout
"""
)


@pytest.fixture(scope="module", params=["forwards", "rootless"])
def host(request):
    if request.param == "rootless" and (without_pasta() or nobody() is None):
        pytest.skip("pasta is not there, or nobody can not read this checkout")
    with World(forwards=request.param == "forwards") as world:
        world.uid = nobody() if request.param == "rootless" else None
        yield world


def on(host, code):
    return json.loads(host.run(NETWORKS + code, uid=host.uid))


def test_who_is_on_a_network_finds_the_others_and_nobody_else(host):
    before = host.look(state_of_host)
    found = on(
        host,
        """
with Network("front") as front, Network(internal=True) as back:
    with idle(HOST.name("web").network(front, aliases=["www"]).network(back)) as web, \\
            idle(HOST.name("app").hostname("apphost").network(front)) as app, \\
            idle(HOST.name("db").network(back)) as db, serve(web) as server, \\
            socket.create_server(("0.0.0.0", 8000)) as on_host:
        say(
            by_name=tried(app, "web", 80) == front.address(app),
            by_alias=tried(app, "www", 80) == front.address(app),
            by_id=tried(app, web.id[:12], 80) == front.address(app),
            by_hostname=tried(web, "apphost", 80),
            itself=tried(web, "web", 80) == front.address(web),
            other_network=tried(app, back.address(web), 80),
            out=tried(app, OUTSIDE, 7, 5),
            internal_by_name=tried(db, "web", 80) == back.address(db),
            internal_out=tried(db, OUTSIDE, 7),
            internal_other=tried(db, front.address(web), 80),
            gateway=tried(app, front.gateway, 8000),
            internal_gateway=tried(db, back.gateway, 8000),
            host=tried(app, THE_HOST, 8000),
            containers=[front.containers, back.containers],
            subnets=front.subnet != back.subnet,
            file=app.exec("sh", "-c", "echo 192.0.2.9 web >> /etc/hosts; mv /etc/hosts /x; rm -f /etc/hosts").ok,
            unchanged="192.0.2.9" in hosts(app),
            owner=web.connect(80).close() is None,
        )
        server.close()
    left = [front.containers, back.containers]
assert left == [(), ()], left
""",
    )
    assert found == {
        "by_name": True,
        "by_alias": True,
        "by_id": True,
        "by_hostname": "ConnectionRefusedError",
        "itself": True,
        "other_network": "TimeoutError",
        "out": HOST,
        "internal_by_name": True,
        "internal_out": "OSError",  # there is no route
        "internal_other": "OSError",
        "gateway": "TimeoutError",
        "internal_gateway": "TimeoutError",
        "host": "TimeoutError",
        "containers": [["web", "app"], ["web", "db"]],
        "subnets": True,
        "file": False,
        "unchanged": False,
        "owner": True,
    }
    assert comes_true(lambda: host.look(state_of_host) == before)


def test_names_come_and_go_while_containers_run(host):
    found = on(
        host,
        """
with Network() as network, idle(HOST.name("first").network(network)) as first:
    alone = hosts(first)
    with idle(HOST.name("second").network(network)) as second:
        both = hosts(first)
        address = network.address(second)
    after = hosts(first)
    say(alone=alone.count("second"), both=f"{address}\\tsecond " in both, after=after == alone)
""",
    )
    assert found == {"alone": 0, "both": True, "after": True}


def test_a_running_container_is_connected_and_disconnected(host):
    found = on(
        host,
        """
with Network() as network, idle(HOST.name("web").network(network)) as web, serve(web) as server, idle(HOST.name("late")) as late:
    address = network.connect(late, aliases=["later"])
    reached = tried(late, network.address(web), 80) == address
    named = f"{address}\\tlate {late.id[:12]} later\\n" in hosts(web)
    out = tried(late, OUTSIDE, 7, 5)
    again = str(type(refused(network.connect, late)).__name__)
    network.disconnect(late)
    say(reached=reached, named=named, out=out, again=again,
        links=late.exec("ls", "/sys/class/net").stdout.split(), gone="late" in hosts(web),
        absent=type(refused(network.address, late)).__name__)
""".replace(
            "with Network()",
            "def refused(call, *arguments):\n    try: call(*arguments)\n    except Exception as error: return error\n\nwith Network()",
            1,
        ),
    )
    assert found == {
        "reached": True,
        "named": True,
        "out": HOST,
        "again": "InvalidSpec",
        "links": ["lo"],
        "gone": False,
        "absent": "InvalidSpec",
    }


def test_subnets_and_addresses_are_chosen_and_defended(host):
    found = on(
        host,
        """
def error_of(call):
    try: call()
    except Exception as error: return f"{type(error).__name__}: {error}"
with Network(subnet="10.9.8.0/24", internal=True) as network, idle(HOST.network(network, ip="10.9.8.77")) as one:
    say(
        address=network.address(one),
        taken=error_of(lambda: HOST.network(network, ip="10.9.8.77").run("true")),
        outside=error_of(lambda: HOST.network(network, ip="10.9.9.1").run("true")),
        host=error_of(lambda: Network(subnet="192.0.2.0/25", internal=True).__enter__()),
        other=error_of(lambda: Network(subnet="10.9.0.0/16", internal=True).__enter__()),
        left=len(network._bridge._taken),
    )
    network.close()
    closed = error_of(lambda: HOST.network(network).run("true"))
assert "was closed" in closed, closed
""",
    )
    assert found["address"] == "10.9.8.77"
    assert "is taken" in found["taken"]
    assert "not of" in found["outside"]
    assert "overlaps 192.0.2.0/24" in found["host"]
    assert "overlaps 10.9.8.0/24" in found["other"]
    assert found["left"] == 4


def test_what_a_killed_owner_leaves_of_networks_is_swept_by_the_next():
    with World(forwards=True) as host:
        before = host.look(state_of_host)
        code = """
import os
with Network() as network, idle(HOST.network(network)) as running:
    print(os.getpid(), flush=True)
    running.wait()
"""
        with host.start(NETWORKS + code) as owner:
            os.kill(int(owner.stdout.readline()), signal.SIGKILL)
            owner.wait()
        assert comes_true(lambda: host.look(state_of_host) == before)
