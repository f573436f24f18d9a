"""Who we are at docker-registry: passwords, tokens, TLS, and the files where credentials are found."""

import base64
import json
import socket
import stat
import time
from concurrent.futures import ThreadPoolExecutor

import attrs
import pytest
from fault_proxy import serve_faults, status
from registry_server import PASSWORD, SOON, USER, make_certificate, make_image, serve_registry
from token_server import IDENTITY_TOKEN, PASSWORDS, SERVICE, serve_tokens

from pycontain.errors import RegistryError, TransferInterrupted, Unauthorized
from pycontain.registry.client import Registry
from pycontain.registry.credentials import Credentials
from pycontain.registry.push import push_image
from pycontain.registry.settings import RegistrySettings

SETTINGS = RegistrySettings(retries=SOON)
IMAGE = make_image(b"private")
READER, WRITER = (Credentials(user, PASSWORDS[user]) for user in ("reader", "writer"))


def settings_of(auth=None, **more):
    return attrs.evolve(SETTINGS, auth=auth, **more)


@pytest.fixture(autouse=True)
def no_credential_files(monkeypatch, tmp_path):
    """The credentials of whoever runs the tests are none of their business."""
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))


def push(server, auth, repository="team/app", **more):
    with Registry(server.address, settings_of(auth, **more)) as registry:
        push_image(registry.repository(repository), IMAGE.descriptor, IMAGE, "1")


def resolve(server, auth=None, repository="team/app", **more):
    with Registry(server.address, settings_of(auth, **more)) as registry:
        return registry.repository(repository).resolve("1")


# --- passwords ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def locked(tmp_path_factory):
    """A registry that wants a password."""
    with serve_registry(tmp_path_factory.mktemp("locked"), password=True) as server:
        push(server, Credentials(USER, PASSWORD))
        yield server


def test_a_password_opens_the_registry(locked):
    assert resolve(locked, Credentials(USER, PASSWORD)) == IMAGE.descriptor


def test_without_a_password_the_error_says_what_to_do(locked):
    with pytest.raises(Unauthorized, match="wants a user name and a password") as caught:
        resolve(locked)
    assert "auth=Credentials" in caught.value.__notes__[0]
    assert caught.value.registry == locked.address


def test_a_wrong_password_is_refused_and_not_repeated_in_the_error(locked):
    with pytest.raises(Unauthorized) as caught:
        resolve(locked, Credentials(USER, "wr0ng-pass"))
    assert "wr0ng-pass" not in f"{caught.value!r}{caught.value.__notes__}{caught.value.__cause__!r}"


def test_credentials_are_found_in_the_config_of_docker(locked, tmp_path):
    write_docker_config(tmp_path, {"auths": {locked.address: entry(USER, PASSWORD)}})
    assert resolve(locked) == IMAGE.descriptor


def test_credentials_are_found_in_the_auth_file_of_containers(locked, tmp_path, monkeypatch):
    path = tmp_path / "auth.json"
    path.write_text(json.dumps({"auths": {f"{locked.address}/team": entry(USER, PASSWORD)}}))
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(path))
    assert resolve(locked) == IMAGE.descriptor


@pytest.mark.parametrize("key", ["credsStore", "credHelpers"])
def test_credentials_are_asked_of_a_program(locked, tmp_path, monkeypatch, key):
    answer = json.dumps({"ServerURL": locked.address, "Username": USER, "Secret": PASSWORD})
    program = tmp_path / "bin" / "docker-credential-tests"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\n[ "$1 $(cat)" = "get {locked.address}" ] && echo \'{answer}\'\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    write_docker_config(tmp_path, {key: "tests" if key == "credsStore" else {locked.address: "tests"}})
    assert resolve(locked) == IMAGE.descriptor


def test_arguments_go_before_files(locked, tmp_path):
    write_docker_config(tmp_path, {"auths": {locked.address: entry(USER, "out of date")}})
    assert resolve(locked, Credentials(USER, PASSWORD)) == IMAGE.descriptor


def entry(user, password):
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def write_docker_config(folder, members):
    (folder / "docker").mkdir()
    (folder / "docker" / "config.json").write_text(json.dumps(members))


# --- tokens ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def module_tokens(tmp_path_factory):
    with serve_tokens(tmp_path_factory.mktemp("tokens")) as tokens:
        yield tokens


@pytest.fixture(scope="module")
def guarded(tmp_path_factory, module_tokens):
    """A registry that believes the token server."""
    with serve_registry(tmp_path_factory.mktemp("guarded"), token=module_tokens.config) as server:
        for repository in ("team/app", "public/app"):
            push(server, WRITER, repository)
        yield server


@pytest.fixture
def tokens(module_tokens):
    module_tokens.asked.clear()
    return module_tokens


def test_what_is_public_can_be_pulled_by_nobody(guarded, tokens):
    assert resolve(guarded, repository="public/app") == IMAGE.descriptor
    assert "Authorization" not in tokens.asked[0].headers


def test_what_is_private_cannot(guarded, tokens):
    with pytest.raises(Unauthorized) as caught:
        resolve(guarded)
    assert "log in" in caught.value.__notes__[0]


def test_a_reader_may_pull(guarded, tokens):
    assert resolve(guarded, READER) == IMAGE.descriptor


def test_a_reader_may_not_push(guarded, tokens):
    image = make_image(b"not from a reader")
    with Registry(guarded.address, settings_of(READER)) as registry, pytest.raises(Unauthorized):
        push_image(registry.repository("team/app"), image.descriptor, image, "2")


def test_an_identity_token_is_exchanged(guarded, tokens):
    assert resolve(guarded, Credentials(identity_token=IDENTITY_TOKEN)) == IMAGE.descriptor
    assert tokens.lines() == ["POST /token"]


def test_a_bearer_token_is_used_as_it_is(guarded, tokens):
    access = [{"type": "repository", "name": "team/app", "actions": ["pull"]}]
    assert resolve(guarded, Credentials(registry_token=tokens.sign("reader", access))) == IMAGE.descriptor
    assert tokens.asked == []


def test_a_wrong_password_is_the_token_servers_affair(guarded, tokens):
    with pytest.raises(Unauthorized, match="token server") as caught:
        resolve(guarded, Credentials("reader", "wr0ng-pass"))
    assert "wr0ng-pass" not in f"{caught.value!r}{caught.value.__notes__}"


def test_one_token_serves_all_requests_of_its_scope(guarded, tokens):
    with Registry(guarded.address, settings_of(READER)) as registry:
        repository = registry.repository("team/app")
        repository.manifest("1")
        repository.resolve("1")
        list(repository.tags())
    assert len(tokens.asked) == 1
    assert f"service={SERVICE}&scope=repository%3Ateam%2Fapp%3Apull&" in tokens.asked[0].path


def test_layers_in_parallel_share_one_token(guarded, tokens):
    with Registry(guarded.address, settings_of(READER)) as registry:
        repository = registry.repository("team/app")
        with ThreadPoolExecutor(8) as threads:
            found = list(threads.map(lambda _: repository.manifest("1")[0], range(16)))
    assert set(found) == {IMAGE.descriptor}
    assert len(tokens.asked) == 1


def test_a_token_near_its_end_is_not_used_again(guarded, tokens, monkeypatch):
    with Registry(guarded.address, settings_of(READER)) as registry:
        repository = registry.repository("team/app")
        repository.resolve("1")
        soon = time.monotonic() + tokens.lifetime - 5
        monkeypatch.setattr(time, "monotonic", lambda: soon)
        repository.resolve("1")
    assert len(tokens.asked) == 2


def test_a_scope_names_what_is_to_be_done(guarded, tokens):
    push(guarded, WRITER, "team/other")
    assert "repository%3Ateam%2Fother%3Apull%2Cpush" in tokens.asked[0].path


def test_a_mount_asks_for_both_repositories(guarded, tokens):
    with Registry(guarded.address, settings_of(WRITER)) as registry:
        layer = next(digest for digest in IMAGE.blobs if digest != IMAGE.descriptor.digest)
        assert registry.repository("team/mounted").mount_blob(layer, "public/app")
    assert "public%2Fapp%3Apull" in tokens.asked[0].path
    assert "team%2Fmounted%3Apull%2Cpush" in tokens.asked[0].path


def test_a_token_that_is_refused_is_replaced(guarded, tokens):
    """As when the registry's clock or keys have changed."""
    with serve_faults(guarded.address) as proxy, Registry(proxy.address, settings_of(READER)) as registry:
        repository = registry.repository("team/app")
        repository.resolve("1")
        challenge = f'Bearer realm="{tokens.config["realm"]}",service="{SERVICE}",error="invalid_token"'
        proxy.fail("HEAD .*", status(401, {"WWW-Authenticate": challenge}))
        assert repository.resolve("1") == IMAGE.descriptor
    assert len(tokens.asked) == 2


def test_a_token_server_in_trouble_is_asked_again(guarded, tokens):
    with serve_faults() as fake, serve_faults(guarded.address) as proxy:
        challenge = f'Bearer realm="http://{fake.address}/token",service="{SERVICE}"'
        proxy.fail("HEAD .*", status(401, {"WWW-Authenticate": challenge}))
        fake.fail("GET .*", status(503))
        fake.fail("GET .*", tokens.answer_question)
        assert resolve(proxy, READER) == IMAGE.descriptor


@pytest.mark.parametrize(
    "answer",
    [b"", b"[", b"[]", b"{}", b'{"token": 5}', b'{"token": "a\\nb"}', b'{"token": ""}', b"x" * 300_000],
    ids=lambda answer: answer.decode()[:20] or "empty",
)
def test_nonsense_from_a_token_server_is_an_error_of_the_registry(answer):
    with serve_faults() as proxy:
        challenge = f'Bearer realm="http://{proxy.address}/token",service="x"'
        proxy.always("GET /token.*", status(200, {}, answer))
        proxy.always("HEAD .*", status(401, {"WWW-Authenticate": challenge}))
        proxy.always("GET /v2/", status(200))
        with pytest.raises(RegistryError):
            resolve(proxy, READER)


@pytest.mark.parametrize("lifetime", [None, -1, 10**400, 1e300], ids=["none", "past", "integer", "float"])
def test_any_lifetime_of_a_token_will_do(guarded, tokens, monkeypatch, lifetime):
    monkeypatch.setattr(tokens, "lifetime", lifetime)
    assert resolve(guarded, READER) == IMAGE.descriptor


def test_a_token_server_that_stays_in_trouble_is_an_error_of_the_registry():
    with serve_faults() as proxy:
        proxy.always("GET /token.*", status(500))
        proxy.always(
            "HEAD .*", status(401, {"WWW-Authenticate": f'Bearer realm="http://{proxy.address}/token"'})
        )
        proxy.always("GET /v2/", status(200))
        with pytest.raises(RegistryError, match="gives no token") as caught:
            resolve(proxy, READER)
    assert caught.value.status == 500


@pytest.mark.parametrize(
    "challenge",
    ["", "Digest realm=x", "Bearer", 'Bearer realm="file:///etc/passwd"', 'Bearer realm="http://[/"', "???"],
)
def test_a_challenge_that_cannot_be_met_is_an_error_of_the_registry(challenge):
    with serve_faults() as proxy:
        proxy.always("HEAD .*", status(401, {"WWW-Authenticate": challenge}))
        proxy.always("GET /v2/", status(200))
        with pytest.raises(RegistryError):
            resolve(proxy, READER)


def test_an_identity_token_does_not_follow_a_redirect_to_another_host():
    with serve_faults() as elsewhere, serve_faults() as proxy:
        challenge = f'Bearer realm="http://{proxy.address}/token",service="x"'
        proxy.always("POST /token", status(307, {"Location": f"http://{elsewhere.address}/token"}))
        proxy.always("HEAD .*", status(401, {"WWW-Authenticate": challenge}))
        proxy.always("GET /v2/", status(200))
        with pytest.raises(RegistryError, match="a request with a secret"):
            resolve(proxy, Credentials(identity_token=IDENTITY_TOKEN))
        assert elsewhere.asked == []


# --- TLS ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def sealed(tmp_path_factory, certificate):
    """A registry with TLS."""
    folder = tmp_path_factory.mktemp("sealed")
    with serve_registry(folder, certificate=certificate) as server:
        push(server, None, ca=str(certificate.authority))
        yield server


def test_the_certificate_of_a_test_authority_is_trusted_when_given(sealed, certificate):
    assert resolve(sealed, ca=str(certificate.authority)) == IMAGE.descriptor


def test_an_unknown_authority_is_refused_and_the_hint_names_ca(sealed):
    """Also on a loopback address, where the server said that it wants TLS."""
    with pytest.raises(RegistryError, match="is not trusted") as caught:
        resolve(sealed)
    assert "ca=" in caught.value.__notes__[0]


def test_verification_can_be_switched_off_without_a_warning(sealed):
    assert resolve(sealed, tls_verify=False) == IMAGE.descriptor


def test_a_file_that_holds_no_certificate_is_named(sealed, tmp_path):
    (tmp_path / "ca.pem").write_text("nothing")
    for path in (tmp_path / "ca.pem", tmp_path / "missing.pem"):
        with pytest.raises(RegistryError, match="cannot be used as certificates"):
            resolve(sealed, ca=str(path))


def test_a_connection_that_ends_in_the_handshake_is_an_interruption():
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as threads:
        ending = threads.submit(lambda: [listener.accept()[0].close() for _ in range(SOON.attempts)])
        address = "{}:{}".format(*listener.getsockname())
        with Registry(address, settings_of(plain_http=False)) as registry, pytest.raises(TransferInterrupted):
            registry.repository("app").resolve("1")
        ending.result()


def test_a_registry_with_tls_may_not_have_a_token_server_without(module_tokens, certificate, tmp_path):
    """Credentials would go there in clear text."""
    with serve_registry(tmp_path, certificate=certificate, token=module_tokens.config) as server:
        module_tokens.asked.clear()
        with pytest.raises(RegistryError, match="a token server without TLS"):
            resolve(server, READER, ca=str(certificate.authority))
        assert module_tokens.asked == []


def test_tls_is_not_spoken_to_a_plain_server_and_the_hint_names_plain_http(guarded):
    with pytest.raises(RegistryError, match="does not speak TLS") as caught:
        resolve(guarded, plain_http=False)
    assert "plain_http=True" in caught.value.__notes__[0]


def test_plain_http_to_a_tls_server_fails_and_the_hint_says_so(sealed):
    with pytest.raises(RegistryError) as caught:
        resolve(sealed, plain_http=True)
    assert "plain_http=False" in caught.value.__notes__[0]
