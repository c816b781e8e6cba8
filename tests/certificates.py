"""A private authority and what it signed."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.conftest import need


def sign(folder: Path, hosts: str, *names: str) -> None:
    """Write `ca.pem`, and for each name `<name>.pem` and `<name>.key`, good for `hosts` alone."""
    (folder / "san").write_text(f"subjectAltName={hosts}")
    key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
    _openssl(folder, f"req -x509 {key} -keyout ca.key -out ca.pem -subj /CN=authority -days 2")
    for name in names:
        _openssl(folder, f"req {key} -keyout {name}.key -out {name}.csr -subj /CN={name}")
        by = "-CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile san"
        _openssl(folder, f"x509 -req -in {name}.csr -out {name}.pem {by}")


def _openssl(folder: Path, command: str) -> None:
    subprocess.run([need("openssl"), *command.split()], cwd=folder, check=True, capture_output=True)
