"""Settings: where a registry is asked, with or without TLS, and how long one waits for it."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycontain.errors import InvalidReference, RegistryError
from pycontain.registry.client import Registry
from pycontain.registry.credentials import Credentials
from pycontain.registry.settings import (
    Endpoint,
    RegistrySettings,
    Retries,
    configure_registry,
    endpoint_of,
    is_loopback,
    mirrors_of,
    settings_of,
)

LOOPBACK = ["localhost", "LOCALHOST:5000", "127.0.0.1", "127.255.0.1:5000", "[::1]", "[::1]:5000"]
ELSEWHERE = ["docker.io", "localhost.example", "127.0.0.1.example:80", "10.0.0.1:5000", "[::2]:5000", "[::]"]


@pytest.mark.parametrize("host", LOOPBACK)
def test_a_loopback_address_is_first_asked_without_tls(host):
    assert is_loopback(host)
    assert endpoint_of(host, RegistrySettings()).scheme == ""


@pytest.mark.parametrize("host", ELSEWHERE)
def test_any_other_address_is_asked_with_tls(host):
    assert not is_loopback(host)
    assert endpoint_of(host, RegistrySettings()).scheme == "https"


@pytest.mark.parametrize("host", ["localhost:5000", "registry.example"])
def test_what_the_caller_says_about_tls_counts(host):
    assert endpoint_of(host, RegistrySettings(plain_http=True)).scheme == "http"
    assert endpoint_of(host, RegistrySettings(plain_http=False)).scheme == "https"
    assert endpoint_of(host, RegistrySettings(ca="/ca.pem")).scheme == "https"


def test_docker_hub_is_asked_at_another_host_than_its_name():
    assert endpoint_of("docker.io", RegistrySettings()).host == "registry-1.docker.io"


MIRRORS = {
    "mirror.example": Endpoint("mirror.example", "mirror.example", "https"),
    "mirror.example:5000/hub/x": Endpoint("mirror.example:5000", "mirror.example:5000", "https", "hub/x"),
    "http://mirror.example/": Endpoint("mirror.example", "mirror.example", "http"),
    "https://localhost:5000": Endpoint("localhost:5000", "localhost:5000", "https"),
    "localhost:5000": Endpoint("localhost:5000", "localhost:5000", ""),
    "[::1]:5000": Endpoint("[::1]:5000", "[::1]:5000", ""),
}


@pytest.mark.parametrize(("text", "endpoint"), MIRRORS.items(), ids=MIRRORS)
def test_a_mirror_is_a_host_with_a_prefix(text, endpoint):
    assert mirrors_of(RegistrySettings(mirrors=[text])) == (endpoint,)


def test_plain_http_of_the_registry_says_nothing_about_its_mirrors():
    (mirror,) = mirrors_of(RegistrySettings(plain_http=True, mirrors=("mirror.example",)))
    assert mirror.scheme == "https"


@pytest.mark.parametrize("text", ["", "ftp://x", "user@host", "host/UPPER", "host?query", "a b"])
def test_what_is_no_mirror_is_refused(text):
    with pytest.raises(RegistryError, match="is no mirror"):
        mirrors_of(RegistrySettings(mirrors=(text,)))


@pytest.mark.parametrize("name", ["", "UPPER", "../x", "a//b", "a?b"])
def test_what_is_no_repository_is_refused(name):
    with Registry("registry.example") as registry, pytest.raises(InvalidReference):
        registry.repository(name)


def test_a_registry_is_made_without_a_word_to_anybody():
    with Registry("registry.invalid") as registry:
        assert repr(registry.repository("a/b").registry) == "Registry(name='registry.invalid')"
        assert str(registry.repository("a/b")) == "registry.invalid/a/b"


# --- patience -------------------------------------------------------------------------------------------

retries = st.builds(
    Retries, st.integers(1, 10), st.floats(0, 10, allow_nan=False), st.floats(10, 100, allow_nan=False)
)
chances = st.floats(0, 1, allow_nan=False)


@given(retries, st.integers(1, 10**6), chances)
def test_no_wait_is_longer_than_the_longest(retries, attempt, chance):
    wait = retries.wait_after(attempt, chance)
    assert wait is None or 0 <= wait <= retries.longest_wait


@given(retries, chances)
def test_the_last_attempt_is_followed_by_none(retries, chance):
    waits = [retries.wait_after(attempt, chance) for attempt in range(1, retries.attempts + 1)]
    assert waits.index(None) == len(waits) - 1


@given(retries, st.integers(1, 10), chances, st.floats(0, 200))
def test_the_wish_of_the_server_is_met_or_nothing_is(retries, attempt, chance, asked):
    wait = retries.wait_after(attempt, chance, asked)
    assert wait is None or wait >= asked
    if asked > retries.longest_wait:
        assert wait is None


# --- secrets --------------------------------------------------------------------------------------------

SECRETS = Credentials("somebody", "hunter2", "identity", "bearer")


def test_the_repr_of_credentials_shows_no_value():
    assert repr(SECRETS) == (
        "Credentials(username=***, password=***, identity_token=***, registry_token=***)"
    )


def test_the_repr_of_credentials_shows_what_is_missing():
    assert repr(Credentials("somebody")).startswith("Credentials(username=***, password='',")


def test_the_repr_of_settings_shows_no_secret():
    shown = repr(RegistrySettings(auth=SECRETS))
    assert not any(secret in shown for secret in ("somebody", "hunter2", "identity'", "bearer"))


def test_settings_are_values():
    settings = RegistrySettings(mirrors=["a"], auth=SECRETS)
    assert pickle.loads(pickle.dumps(settings)) == settings
    assert hash(settings) == hash(RegistrySettings(mirrors=("a",), auth=SECRETS))


def test_what_a_process_says_of_a_registry_holds_until_it_is_forgotten():
    said = RegistrySettings(mirrors=("mirror.example",))
    configure_registry("r.example:5000", said)
    assert settings_of("r.example:5000") == said
    assert settings_of("r.example") == RegistrySettings()
    configure_registry("r.example:5000", None)
    assert settings_of("r.example:5000") == RegistrySettings()


@pytest.mark.parametrize("registry", ["", "https://r.example", "r.example/x"])
def test_what_is_no_registry_cannot_be_configured(registry):
    with pytest.raises(InvalidReference):
        configure_registry(registry, RegistrySettings())


def test_a_wrong_mirror_is_refused_when_it_is_said():
    with pytest.raises(RegistryError, match="no mirror"):
        configure_registry("r.example", RegistrySettings(mirrors=("no mirror",)))
