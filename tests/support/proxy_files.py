"""What the tests of nginx.conf, Caddyfile and the unit share; needs no Django."""

from __future__ import annotations

import datetime
import json
import os
import re
import subprocess
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

ROOT = Path(__file__).resolve().parent.parent.parent
HTTP_BLOCK = """
daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.log; {user}
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    include {folder}/site.conf;
}}
"""


def served(port: int) -> list[str]:
    """The command of deploy/systemd/portico@.service, after the path."""
    unit = (ROOT / "deploy/systemd/portico@.service").read_text()
    found = re.search(r"^ExecStart=\S+/(uvicorn .*)$", unit, re.MULTILINE)
    assert found is not None
    return found.group(1).replace("%i", str(port)).split()


def certificates(folder: Path, host: str = "localhost") -> tuple[Path, Path]:
    """(certificate, key) of a test authority for this host."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = datetime.datetime.now(datetime.UTC)
    names: list[x509.GeneralName] = [
        x509.DNSName(host),
        x509.IPAddress(ip_address("127.0.0.1")),
    ]
    paths = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = serialization.NoEncryption()
    pkcs8 = serialization.PrivateFormat.PKCS8
    (folder / "tls.crt").write_bytes(paths.public_bytes(pem))
    (folder / "tls.key").write_bytes(key.private_bytes(pem, pkcs8, plain))
    return folder / "tls.crt", folder / "tls.key"


def caddyfile(env: dict[str, str]) -> dict[str, Any]:
    """deploy/Caddyfile as Caddy reads it, without a change of the trust store."""
    path = {"PATH": os.environ["PATH"], **env}
    command = ["caddy", "adapt", "--adapter", "caddyfile", "--config"]
    done = subprocess.run(
        [*command, "deploy/Caddyfile"],
        cwd=ROOT,
        env=path,
        check=True,
        capture_output=True,
    )
    settings: dict[str, Any] = json.loads(done.stdout)
    authorities = {"local": {"install_trust": False}}
    settings["apps"]["pki"] = {"certificate_authorities": authorities}
    return settings
