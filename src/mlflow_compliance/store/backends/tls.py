"""What a database driver says when TLS is what it stumbles over, and the way out of that."""

from __future__ import annotations

import re
from collections.abc import Sequence

_OF_POSTGRESQL = (
    ("does not support SSL", "switch TLS on there, or do not ask for it: sslmode in the tracking URI"),
    ("does not match host name", "write the host name that its certificate is for into the tracking URI"),
    ("certificate verify failed|root certificate", "name the certificate of the authority that signed its own in sslrootcert of the tracking URI"),
    (
        r"client certificate|certificate authentication|certificate required|unknown ca|private key|certificate file",
        "name a certificate that the server accepts, and its key, in sslcert and sslkey of the tracking URI",
    ),
    ("no encryption|SSL off", "where it takes connections over TLS only, set sslmode=verify-full and sslrootcert in the tracking URI"),
    (
        r"\bSSL (error|connection|negotiation)|(invalid|unknown|weak) ssl|ssl\w+ value",
        "check sslmode, sslrootcert, sslcert and sslkey in the tracking URI",
    ),
)
_OF_MYSQL = (
    ("SSL is required but", "switch TLS on there, or leave the parameters that begin with ssl_ out of the tracking URI"),
    ("insecure transport", "it takes connections over TLS only: name the certificate of its authority in ssl_ca of the tracking URI"),
    ("is not valid for", "write the host name that its certificate is for into the tracking URI"),
    ("certificate verify failed", "name the certificate of the authority that signed its own in ssl_ca of the tracking URI"),
    ("certificate required|unknown ca", "name a certificate that the server accepts, and its key, in ssl_cert and ssl_key of the tracking URI"),
    (
        "Access denied",
        "check user and password, and whether it asks for TLS (ssl_ca in the tracking URI) or for a client certificate (ssl_cert and ssl_key)",
    ),
    (r"\[SSL|\[X509|\bPEM\b", "check the files that ssl_ca, ssl_cert and ssl_key name"),
)
_WAYS = {"postgresql": _OF_POSTGRESQL, "mysql": _OF_MYSQL}
_FORGETFUL = ("ssl_verify_cert", "ssl_verify_identity")
"""Where the URI has one of these, PyMySQL looks for the authority among its own arguments, but SQLAlchemy has put ssl_ca into its `ssl`."""


def way_out(dialect: str, lines: Sequence[str], asked: Sequence[str]) -> tuple[str, str]:
    """The line that tells of TLS and what to do about it, empty where none does. `asked` are the names of the URI's parameters.

    A driver tells of every address that it tried, a line for each, and TLS is what stopped it where something answered.
    """
    for pattern, way in _WAYS.get(dialect, ()):
        line = next((line for line in lines if re.search(pattern, line, re.IGNORECASE)), "")
        if line:
            return line, ("verify failed" in line and _unforgetting(asked)) or way
    return "", ""


def _unforgetting(asked: Sequence[str]) -> str:
    found = " and ".join(name for name in _FORGETFUL if name in asked and "ssl_ca" in asked)
    return found and f"leave {found} out of the tracking URI: ssl_ca alone has the server verified, and beside the others it is not used"
