"""A token server for docker-registry: who may do what, and tokens signed so that the registry believes them.

``reader`` may pull, ``writer`` may push too; nobody may pull what is below ``public/``. An identity token stands for
the writer. Signing is openssl's work, for its tests need no more packages.
"""

import base64
import json
import shutil
import ssl
import subprocess
import time
from contextlib import contextmanager
from urllib.parse import parse_qs, urlsplit

import pytest
from fault_proxy import Proxy, serving

ISSUER, SERVICE = "pycontain tests", "registry.tests"
PASSWORDS = {"reader": "read: only", "writer": "write & more"}
IDENTITY_TOKEN = "an-identity-token"
LIFETIME = 300


class TokenServer(Proxy):
    """Answers at ``/token``. What it was asked is in ``asked``, as with the fault proxy."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder
        self.issued = 0
        self.lifetime = LIFETIME
        self.always("GET /token.*", self.answer_question)
        self.always("POST /token", self.answer_exchange)

    @property
    def config(self):
        """The section about tokens in a registry's configuration."""
        return {
            "realm": f"http://{self.address}/token",
            "service": SERVICE,
            "issuer": ISSUER,
            "rootcertbundle": str(self.folder / "token.pem"),
        }

    def answer_question(self, exchange, asked):
        user = _user_of(asked.headers.get("Authorization", ""))
        if user is False:
            exchange.send(401, {"Content-Length": 0})
        else:
            self.give(exchange, user, parse_qs(urlsplit(asked.path).query).get("scope", []), "token")

    def answer_exchange(self, exchange, asked):
        form = {name: values[0] for name, values in parse_qs(asked.body.decode()).items()}
        if (form["grant_type"], form["refresh_token"]) != ("refresh_token", IDENTITY_TOKEN):
            exchange.send(401, {"Content-Length": 0})
        else:
            self.give(exchange, "writer", form["scope"].split(), "access_token")

    def give(self, exchange, user, scopes, name):
        self.issued += 1
        access = [granted for scope in scopes if (granted := _grant(user, scope))]
        content = json.dumps({name: self.sign(user, access), "expires_in": self.lifetime}).encode()
        exchange.send(200, {"Content-Length": len(content)}, content)

    def sign(self, user, access):
        """A token as docker-registry wants it (distribution, "Token Authentication Specification")."""
        chain = base64.b64encode(ssl.PEM_cert_to_DER_cert((self.folder / "token.pem").read_text())).decode()
        header = {"typ": "JWT", "alg": "RS256", "x5c": [chain]}
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "sub": user or "",
            "aud": SERVICE,
            "jti": str(self.issued),
            "access": access,
            "iat": now,
            "nbf": now - 60,
            "exp": now + LIFETIME,
        }
        text = b".".join(_encode(json.dumps(part).encode()) for part in (header, claims))
        command = ["openssl", "dgst", "-sha256", "-sign", self.folder / "token.key"]
        signature = subprocess.run(command, input=text, capture_output=True, check=True).stdout
        return (text + b"." + _encode(signature)).decode()


def _encode(content):
    return base64.urlsafe_b64encode(content).rstrip(b"=")


def _user_of(authorization):
    """The user, None for nobody, False for somebody with a wrong password."""
    if not authorization:
        return None
    user, _, password = base64.b64decode(authorization.removeprefix("Basic ")).decode().partition(":")
    return user if PASSWORDS.get(user) == password else False


def _grant(user, scope):
    kind, name, actions = scope.split(":")
    allowed = {"reader": {"pull"}, "writer": {"pull", "push"}}.get(user, set())
    if name.startswith("public/"):
        allowed = allowed | {"pull"}
    granted = sorted(allowed & set(actions.split(",")))
    return {"type": kind, "name": name, "actions": granted} if granted else None


@contextmanager
def serve_tokens(folder):
    """A :class:`TokenServer` that lives as long as the block, with a key of its own."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    new_key = ("-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "token.key", "-out", "token.pem")
    command = [openssl, "req", *new_key, "-subj", "/CN=tokens"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    with serving(TokenServer(folder)) as server:
        yield server
