"""A real certificate chain, made with the openssl command: a root, an intermediate, and leaves for this machine."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

_CONFIG = """
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
[leaf]
basicConstraints = CA:FALSE
subjectAltName = IP:127.0.0.1, DNS:localhost
keyUsage = digitalSignature
extendedKeyUsage = serverAuth
"""


@dataclass(frozen=True)
class Pair:
    """certificate: a leaf with its intermediate. key: the private key of the leaf."""

    certificate: Path
    key: Path


class Authority:
    """Signs leaves with an intermediate, which `root` has signed. All files are in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "openssl.cnf").write_text(_CONFIG)
        self._request("root", "-x509", "-extensions", "authority")
        self._sign("middle", "root", "authority")

    @property
    def root(self) -> Path:
        """The certificate that clients trust."""
        return self._folder / "root.pem"

    def pair(self, name: str, days: int = 2) -> Pair:
        """A new leaf for 127.0.0.1 and localhost, with its intermediate and key."""
        self._sign(name, "middle", "leaf", days)
        chain = self._folder / f"{name}.chain.pem"
        chain.write_bytes(b"".join((self._folder / f"{each}.pem").read_bytes() for each in (name, "middle")))
        return Pair(chain, self._folder / f"{name}.key")

    def _sign(self, name: str, by: str, kind: str, days: int = 2) -> None:
        self._request(name)
        self._openssl(
            "x509", "-req", "-in", f"{name}.pem", "-out", f"{name}.pem", "-days", str(days), "-CA", f"{by}.pem",
            "-CAkey", f"{by}.key", "-CAcreateserial", "-extfile", "openssl.cnf", "-extensions", kind,
        )  # fmt: skip

    def _request(self, name: str, *more: str) -> None:
        new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", f"{name}.key")
        self._openssl("req", *new_key, "-subj", f"/CN={name}", "-out", f"{name}.pem", "-config", "openssl.cnf", *more)

    def _openssl(self, *words: str) -> None:
        done = subprocess.run(["openssl", *words], cwd=self._folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
