"""Where credentials are found: the files of Docker and of the containers tools, and credential programs."""

from __future__ import annotations

import base64
import json
import pickle
import traceback

import pytest

from pycontain.errors import RegistryError
from pycontain.registry.credentials import DOCKER_HUB_KEY, Credentials, find_credentials


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An empty home, and no variable that leads elsewhere."""
    for name in ("REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "DOCKER_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def write(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(members if isinstance(members, str) else json.dumps(members))


def entry(text):
    return {"auth": base64.b64encode(text.encode()).decode()}


def auths(**entries):
    return {"auths": {key.replace("_", "."): entry(text) for key, text in entries.items()}}


def user_of(registry, repository="team/app"):
    found = find_credentials(registry, repository)
    return found and found.username


def test_without_files_there_are_none():
    assert find_credentials("r.example", "a") is None


def test_docker_s_config_is_read(home):
    write(home / ".docker/config.json", auths(r_example="user:pass:word"))
    assert find_credentials("r.example", "a") == Credentials("user", "pass:word")


def test_docker_config_names_its_folder(home, monkeypatch):
    monkeypatch.setenv("DOCKER_CONFIG", str(home / "elsewhere"))
    write(home / ".docker/config.json", auths(r_example="wrong:x"))
    write(home / "elsewhere/config.json", auths(r_example="right:x"))
    assert user_of("r.example") == "right"


def test_the_files_are_asked_in_their_order(home, monkeypatch):
    """Each file that is added goes before those that were there."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(home / "run"))
    for path in (".docker/config.json", ".config/containers/auth.json", "run/containers/auth.json"):
        write(home / path, auths(r_example=f"{path}:x"))
        assert user_of("r.example") == path


def test_a_file_without_an_entry_is_passed_over(home):
    write(home / ".config/containers/auth.json", auths(other_example="x:x"))
    write(home / ".docker/config.json", auths(r_example="docker:x"))
    assert user_of("r.example") == "docker"


def test_registry_auth_file_is_the_only_file(home, monkeypatch):
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(home / "missing.json"))
    write(home / ".docker/config.json", auths(r_example="docker:x"))
    assert user_of("r.example") is None


@pytest.mark.parametrize(
    ("registry", "key"),
    [
        ("docker.io", DOCKER_HUB_KEY),
        ("docker.io", "docker.io"),
        ("docker.io", "index.docker.io"),
        ("docker.io", "https://registry-1.docker.io/v2/"),
        ("r.example:5000", "r.example:5000"),
        ("r.example:5000", "https://r.example:5000"),
        ("r.example:5000", "http://r.example:5000/v1/"),
        ("r.example:5000", "r.example:5000/v2/"),
    ],
)
def test_a_registry_has_many_spellings(home, registry, key):
    write(home / ".docker/config.json", {"auths": {key: entry("found:x")}})
    assert user_of(registry) == "found"
    assert user_of("r.example") is None


def test_the_most_specific_entry_counts(home):
    names = {"r.example": "host", "r.example/team": "team", "r.example/team/app": "app"}
    write(
        home / ".config/containers/auth.json",
        {"auths": {name: entry(f"{user}:x") for name, user in names.items()}},
    )
    for repository, user in {"other": "host", "team2": "host", "team/b": "team", "team/app": "app"}.items():
        assert user_of("r.example", repository) == user


@pytest.mark.parametrize(
    ("members", "credentials"),
    [
        ({"username": "u", "password": "p"}, Credentials("u", "p")),
        ({"auth": entry("u:p")["auth"], "identitytoken": "t"}, Credentials("u", "p", "t")),
        ({"registrytoken": "t"}, Credentials(registry_token="t")),
        ({"auth": base64.b64encode(b"u:p\0\0").decode()}, Credentials("u", "p")),
        ({}, None),
        ({"email": "x@example.com"}, None),
    ],
)
def test_an_entry_has_several_forms(home, members, credentials):
    write(home / ".docker/config.json", {"auths": {"r.example": members}})
    assert find_credentials("r.example", "a") == credentials


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"hunter2": 1, "hunter2": 2}',
        '{"auths": {"r.example": "hunter2"}}',
        '{"auths": {"r.example": {"auth": "hunter2!"}}}',
        '{"auths": {"r.example": {"auth": "/////w=="}}}',
        '{"auths": {"r.example": {"auth": 5}}}',
        '{"credsStore": "../hunter2"}',
        '{"credsStore": 5}',
    ],
)
def test_a_broken_file_is_named_and_not_quoted(home, text):
    path = home / ".docker/config.json"
    write(path, text)
    with pytest.raises(RegistryError) as caught:
        find_credentials("r.example", "a")
    assert str(path) in str(caught.value)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_an_empty_file_says_nothing(home):
    write(home / ".docker/config.json", "")
    assert user_of("r.example") is None


def test_a_folder_in_the_place_of_the_file_is_an_error_of_ours(home):
    (home / ".docker/config.json").mkdir(parents=True)
    with pytest.raises(RegistryError, match="cannot be read"):
        find_credentials("r.example", "a")


# --- programs -------------------------------------------------------------------------------------------


@pytest.fixture
def program(home, monkeypatch):
    """Write a credential program of a name; its shell text sees the registry as ``$key``."""
    monkeypatch.setenv("PATH", f"{home}/bin:/usr/bin:/bin")

    def write_program(name, text):
        path = home / "bin" / f"docker-credential-{name}"
        write(path, f'#!/bin/sh\n[ "$1" = get ] || exit 9\nkey=$(cat)\n{text}\n')
        path.chmod(0o755)

    return write_program


def answer(user, secret="secret"):
    return f"echo '{json.dumps({'ServerURL': 'x', 'Username': user, 'Secret': secret})}'"


def test_the_store_of_all_is_asked(home, program):
    program("all", answer("stored"))
    write(home / ".docker/config.json", {"credsStore": "all", **auths(r_example="file:x")})
    assert find_credentials("r.example", "a") == Credentials("stored", "secret")


def test_a_program_for_one_registry_goes_before_the_store(home, program):
    program("all", answer("all"))
    program("one", answer("one"))
    write(home / ".docker/config.json", {"credsStore": "all", "credHelpers": {"r.example": "one"}})
    assert user_of("r.example") == "one"
    assert user_of("other.example") == "all"


def test_a_store_without_an_entry_is_followed_by_the_file(home, program):
    program("all", "echo credentials not found in native keychain; exit 1")
    write(home / ".docker/config.json", {"credsStore": "all", **auths(r_example="file:x")})
    assert user_of("r.example") == "file"


def test_docker_hub_has_its_old_name_for_programs(home, program):
    program("all", 'printf \'{"Username": "%s", "Secret": "x"}\' "$key"')
    write(home / ".docker/config.json", {"credsStore": "all"})
    assert user_of("docker.io") == DOCKER_HUB_KEY
    assert user_of("r.example:5000") == "r.example:5000"


def test_a_program_may_give_an_identity_token(home, program):
    program("all", answer("<token>", "opaque"))
    write(home / ".docker/config.json", {"credsStore": "all"})
    assert find_credentials("r.example", "a") == Credentials(identity_token="opaque")


@pytest.mark.parametrize(
    "text", ["echo hunter2; exit 3", "echo hunter2", 'echo \'{"Secret": "hunter2"}\'', "kill -9 $$"]
)
def test_a_program_that_fails_is_named_and_not_quoted(home, program, text):
    program("all", text)
    write(home / ".docker/config.json", {"credsStore": "all"})
    with pytest.raises(RegistryError, match="docker-credential-all") as caught:
        find_credentials("r.example", "a")
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))
    assert caught.value.registry == "r.example"


def test_a_program_that_hangs_is_ended_and_named(home, program, monkeypatch):
    monkeypatch.setattr("pycontain.registry.credentials._PROGRAM_TIMEOUT", 0.05)
    program("all", "exec sleep 600")
    write(home / ".docker/config.json", {"credsStore": "all"})
    with pytest.raises(RegistryError, match="docker-credential-all gave no answer"):
        find_credentials("r.example", "a")


def test_a_program_that_is_missing_is_named(home):
    write(home / ".docker/config.json", {"credsStore": "not-installed"})
    with pytest.raises(RegistryError, match="docker-credential-not-installed cannot be run"):
        find_credentials("r.example", "a")


def test_an_error_survives_pickling(home):
    write(home / ".docker/config.json", {"credsStore": "not-installed"})
    with pytest.raises(RegistryError) as caught:
        find_credentials("r.example", "a")
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), copy.registry, copy.__notes__) == (
        str(caught.value),
        "r.example",
        caught.value.__notes__,
    )
