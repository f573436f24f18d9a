"""What follows a redirect, how Retry-After reads, and which words an error shows."""

from __future__ import annotations

import subprocess
import sys
import time
from email.utils import formatdate

import pytest

from pycontain.errors import RegistryError
from pycontain.registry.transport import Body, Request, host_of, origin_of, redirected, retry_after

START = Request(
    "GET", "https://r.example/v2/a/blobs/x", headers={"Range": "bytes=5-"}, authorization="Basic c2VjcmV0"
)


@pytest.mark.parametrize(
    "location",
    [
        "/other",
        "other?query",
        "https://r.example/x",
        "https://r.example:443/x",
        "https://R.EXAMPLE/x",
        "//r.example/x",
    ],
)
def test_the_same_origin_gets_the_credentials(location):
    assert redirected(START, location).authorization == START.authorization


@pytest.mark.parametrize(
    "location",
    [
        "https://r.example:444/x",
        "https://sub.r.example/x",
        "https://r.example.evil/x",
        "//evil.example/x",
        "https://r.example@evil.example/x",
        "https://evil.example#@r.example/",
        "https://evil.example?@r.example/",
    ],
)
def test_another_origin_does_not(location):
    request = redirected(START, location)
    assert request.authorization == ""
    assert request.headers == START.headers


@pytest.mark.parametrize("location", ["http://r.example/x", "http://evil.example/"])
def test_tls_is_not_left(location):
    with pytest.raises(RegistryError, match="without TLS"):
        redirected(START, location)


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd",
        "ftp://r.example/",
        "data:,x",
        "https://[/",
        "https://r.example:x/",
        "https://r.example:99999/",
    ],
)
def test_what_cannot_be_asked_is_refused(location):
    with pytest.raises(RegistryError):
        redirected(START, location)


def test_a_secret_in_a_body_stays_where_it_is():
    request = Request("POST", "https://auth.example/token", body=Body.of(b"refresh_token=x"), confined=True)
    assert redirected(request, "/other").url == "https://auth.example/other"
    with pytest.raises(RegistryError, match="with a secret"):
        redirected(request, "https://other.example/token")


def test_a_request_shows_no_secret():
    request = Request("POST", "https://a.example/", body=Body.of(b"s3cret"), authorization="Bearer s3cret")
    assert "s3cret" not in repr(request)


def test_an_origin_is_scheme_host_and_port():
    assert origin_of("https://User:pw@R.Example/x") == ("https", "r.example", 443)
    assert origin_of("http://[::1]:5000/") == ("http", "::1", 5000)


@pytest.mark.parametrize(
    "url", ["https://u:p@r.example:5000/x?y", "http://r.example:5000", "x://r.example:5000#@z"]
)
def test_a_host_is_shown_without_a_password(url):
    assert host_of(url) == "r.example:5000"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("120", 120),
        (" 7 ", 7),
        ("", 0),
        ("soon", 0),
        ("-5", 0),
        ("9" * 400, float("9" * 12)),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
    ],
)
def test_retry_after_is_read(text, seconds):
    assert retry_after({"Retry-After": text}) == seconds


def test_retry_after_may_be_a_date():
    wait = retry_after({"Retry-After": formatdate(time.time() + 3600, usegmt=True)})
    assert 0 < wait <= 3601


def test_urllib3_waits_for_the_first_request():
    """Also a program that only reads credentials or settings should not pay for it."""
    program = "import sys, pycontain.registry.client, pycontain.registry.push; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True
    ).stdout
    assert not {"urllib3", "ssl", "subprocess", "concurrent.futures"} & set(loaded.split())
