"""Who issues tokens in the tests: a signer of good and bad ones, and a real OpenID provider."""

from __future__ import annotations

import http.server
import json
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import jwt
import trustme
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from wanwu.embedded.server import free_port

ISSUER, AUDIENCE = "https://login.example.cn", "wanwu"

Key = Any  # a private key of `cryptography`


def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


class Issuer:
    """Signs tokens, and publishes the keys that check them."""

    def __init__(self) -> None:
        curve = ec.generate_private_key(ec.SECP256R1())
        self.keys: dict[str, Key] = {"rsa": rsa_key(), "ec": curve}

    def key_set(self) -> bytes:
        return json.dumps({"keys": [published(*each) for each in self.keys.items()]}).encode()

    def token(
        self, kid: str = "rsa", key: Key = None, alg: str | None = None, **claims: Any
    ) -> str:
        """Sign a token that is good but for the claims that are given; None leaves one out."""
        now = time.time()
        good = {"iss": ISSUER, "aud": AUDIENCE, "sub": "shop", "iat": now, "exp": now + 600}
        whole = {**good, "scope": "recognise", **claims}
        known = {name: value for name, value in whole.items() if value is not None}
        signs = key or self.keys[kid]
        return jwt.encode(known, signs, alg or _algorithm(signs), headers={"kid": kid})


def _algorithm(key: Key) -> str:
    if isinstance(key, rsa.RSAPrivateKey):
        return "RS256"
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return {256: "ES256", 384: "ES384", 521: "ES512"}[key.key_size]
    return "EdDSA"


def published(kid: str, key: Key, **more: Any) -> dict[str, Any]:
    """Return a key as a key set has it; None leaves a member out."""
    described = jwt.get_algorithm_by_name(_algorithm(key)).to_jwk(key.public_key(), as_dict=True)
    whole = {**described, "kid": kid, "use": "sig", **more}
    return {name: value for name, value in whole.items() if value is not None}


def tokens_of(key_set: Path | str | None, **more: Any) -> tuple[str, ...]:
    """Return the arguments of a gateway that trusts an issuer."""
    trusted = {"issuer": ISSUER, "audience": AUDIENCE, "jwks": key_set and str(key_set), **more}
    return ("--issuers", json.dumps([trusted]))


class Publisher:
    """Serves documents by http, as an issuer does, and counts how often each is fetched."""

    def __init__(self) -> None:
        self.document = b""
        self.raw: bytes | None = None
        self.slow_s = 0.0
        self.paths: list[str] = []
        publisher = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                publisher.paths.append(self.path)
                if publisher.raw is not None:
                    self.wfile.write(publisher.raw)
                    return
                self.send_response(200)
                self.end_headers()
                ends = time.monotonic() + publisher.slow_s
                while time.monotonic() < ends:  # byte by byte, so that no read waits long
                    self.wfile.write(b" ")
                    time.sleep(0.2)
                self.wfile.write(publisher.document)

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign]
        self.host = f"127.0.0.1:{self.server.server_address[1]}"
        self.url = f"http://{self.host}/jwks"

    @property
    def fetches(self) -> int:
        return len(self.paths)


@contextmanager
def publishing() -> Iterator[Publisher]:
    made = Publisher()
    thread = threading.Thread(target=made.server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield made
    finally:
        made.server.shutdown()
        thread.join()
        made.server.server_close()


@dataclass
class OidcProvider:
    """A real OpenID Connect provider, behind TLS, with discovery and a key of its own."""

    url: str
    authority: Path
    process: subprocess.Popen[bytes]

    def token(self, subject: str, audience: str = AUDIENCE, **claims: Any) -> str:
        """Sign a person in, as a browser and a client do, and return the token that they get."""
        trusted = ssl.create_default_context(cafile=self.authority)
        with httpx2.Client(base_url=self.url, verify=trusted, trust_env=False) as client:
            client.put(f"/users/{subject}", json=claims).raise_for_status()
            asked = {"client_id": audience, "redirect_uri": "https://app.example.cn/signed-in"}
            query = {**asked, "response_type": "code", "scope": "openid"}
            sent = client.post("/oauth2/authorize", params=query, data={"sub": subject})
            code = parse_qs(urlsplit(sent.headers["Location"]).query)["code"][0]
            form = {**asked, "grant_type": "authorization_code", "code": code}
            answer = client.post("/oauth2/token", data=form, auth=(audience, "secret"))
            token: str = answer.raise_for_status().json()["id_token"]
            return token

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)


@contextmanager
def oidc_provider(folder: Path) -> Iterator[OidcProvider]:
    authority, port = trustme.CA(), free_port()
    certificate, file = folder / "issuer.pem", folder / "authority.pem"
    authority.cert_pem.write_to_path(file)
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(certificate)
    command = [
        *(sys.executable, "-m", "uvicorn", "--factory", "oidc_provider_mock:app"),
        *("--interface", "wsgi", "--port", str(port), "--log-level", "warning"),
        *("--ssl-certfile", str(certificate)),
    ]
    with (folder / "issuer.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    provider = OidcProvider(f"https://localhost:{port}", file, process)
    try:
        _wait(provider)
        yield provider
    finally:
        provider.stop()


def _wait(provider: OidcProvider) -> None:
    trusted, ends = ssl.create_default_context(cafile=provider.authority), time.monotonic() + 60
    while True:
        try:
            httpx2.get(f"{provider.url}/jwks", verify=trusted, trust_env=False)
            return
        except httpx2.TransportError:
            assert provider.process.poll() is None
            assert time.monotonic() < ends, "the provider did not start"
            time.sleep(0.1)
