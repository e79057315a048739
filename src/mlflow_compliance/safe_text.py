"""Text that a store brought along, made safe to show: secrets cut, no control characters, a bounded length."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any
from urllib.parse import unquote

CUT = "***"
_WORTH_A_LOOK = re.compile(r"[@?#=…]|\.\.\.|%40|(?i:s3|gs)[an]?://[^\s/]*:|(?i:bearer|basic) ")
_AUTHORITY = re.compile(
    r"(?P<scheme>(?<![A-Za-z0-9+.-])[A-Za-z0-9+.-]+:|(?<![^\s\"'])|(?<=\s\())(?:\\?/){2}|(?<![A-Za-z0-9+.-])(?:https?|s?ftp|ssh):\\?/(?!\\?/)"
)
"""Where user and password of a URI may begin. Of a path that was normalized, one slash is left; JSON may write it
as `\\/`.
"""
_TOKEN = re.compile(r"[^\s\"'<>]*")
_LOOSE = re.compile(r"(?<![\w.+%~!$*-])(?![A-Za-z]:[\\/])(?P<user>[\w.+%~!$*-]+):(?P<rest>[^\s/\"'<>]+@)(?!sha\d+:)")
"""`user:password@` without a scheme, or behind one that has no slashes."""
_LOOSE_DATABASE = re.compile(
    r"(?<![\w.+-])(?P<scheme>(?:postgres|mysql|maria|mssql|oracle|sqlserver|jdbc|s?ftp)[\w+:]*):(?![/*\\])[^\s\"'<>]*@"
)
_ENCODED = re.compile(r"(?i)(%3A%2F%2F)[^\s\"'<>&]*%40")
_WITHIN = re.compile(r"\*\*\*@[^\s\"'<>]*://\*\*\*@")
"""What is left between two cuts of one word: a password may hold `@` and `://` itself."""
_HEADER = re.compile(r"(?i)\b(bearer|basic) +[A-Za-z0-9._~+/=-]{8,}")
_NAMED = (
    r"pass(?:word|wd|phrase)?|pwd|secret|"
    r"(?:\w*[_-])?(?:token|secret|password|api[_-]?key|access[_-]?key|secret[_-]?key|account[_-]?key)"
)
_NAMED += (
    r"|sig|signature|accountkey|accesskey|apikey|sharedaccesssignature|x-amz-(?:signature|security-token|credential)"
)
_SECRET_NAME = re.compile(rf"(?i)(?:{_NAMED}|key|auth|code|credentials?|x-goog-(?:signature|credential))")
_IN_A_CALL = r"(?<=signature=)(?:signature,|mlflow\.models\.infer_signature\()"
"""That of a model, as advice has it: it is no secret."""
_PAIR = re.compile(rf"(?i)(?<![\w.-])({_NAMED})=(?!\s|=|{_IN_A_CALL})[^\s\"'<>&;,]+")
"""`password=...` as drivers and connection strings have it."""
_NO_USER = frozenset(
    {"mailto", "acct", "sip", "sips", "xmpp", "models", "runs", "mail", "email", "owner", "author", "contact", "by"}
)
"""Before an e-mail address or an alias: what follows is no password."""
_PORTS = frozenset({"http", "https", "ws", "wss", "tcp", "tls", "grpc", "hdfs", "webhdfs", "mlflow-artifacts"})
"""Schemes whose paths may hold an @ behind a port; of others what looks so is a password with a slash."""
_BUCKETS = frozenset({"s3", "s3a", "s3n", "gs"})
_CONTAINERS = frozenset({"wasb", "wasbs", "abfs", "abfss"})
_CONTAINER = re.compile(r"[a-z0-9$][a-z0-9-]{2,62}@[a-z0-9-]+\.(?:blob|dfs)\.(?:core|storage|fabric)\.")
"""`container@account`: the two names are no secret, and no other URI of Azure says which storage is meant."""
_HARMLESS_NAME = re.compile(
    r"(?i)connect_timeout|ssl_?(mode|rootcert|cert|key|crl|ca|capath|check_hostname|verify_cert|verify_identity|disabled|negotiation)"
    r"|mode|uri|cache|immutable|timeout|charset|driver|application_name|versionid|region|usp|page|workspace"
)
"""Parameters that hold nothing secret. Cut out, a value such as `require` would take half of the sentence about it
along.
"""
_HARMLESS_VALUE = re.compile(r"(?i)\d{0,12}|\d+(\.\d+)+|true|false|yes|no|on|off|\*\*\*")
_NO_PORT = re.compile(r"[^:]*:(?![1-9]\d{1,4}$).*", re.DOTALL)
_TOKEN_LIKE = re.compile(r"(?=.*\d)(?=.*[A-Za-z]).{16,}")
_USER = re.compile(r"[\w.+%~!$*-]*")
"""What may still be the user's name: no other URI begins right behind it, whatever looks like one."""
_OPEN = re.compile(r"[^\s@/?#:]*:(?![1-9]\d{1,4}(?:[/?#,]|$))[^\s@\"']*")
"""A user and the beginning of a password."""
_SIXTH_VERSION = re.compile(r"^\[[0-9A-Fa-f:.%]*\]")
_END = re.compile(r"[)\].,;:}…]*$")


def without_secrets(text: str, of: str = "", *, sure: bool = False) -> str:
    """A text as it may be shown: of every URI in it user and password are cut, and what may be a token in its query or
    fragment.

    `of` is a URI that whoever wrote the text was given: its secrets are cut where they stand by themselves too. With
    `sure` only what is
    a secret beyond doubt is cut: a password, or a value under a name such as `token`.
    """
    if of:
        text = text.replace(of, without_secrets(of, sure=sure))
        for secret in sorted(_secrets(of), key=len, reverse=True):
            text = text.replace(secret, CUT)
    if not _WORTH_A_LOOK.search(text):
        return text
    text = "".join(_pieces(text, sure=sure))
    text = _LOOSE_DATABASE.sub(rf"\g<scheme>:{CUT}@", text)
    text = _LOOSE.sub(lambda found: _loosely(found, sure=sure), text)
    text = _ENCODED.sub(rf"\1{CUT}%40", text)
    text = _WITHIN.sub(f"{CUT}@", text)
    return _PAIR.sub(rf"\1={CUT}", _HEADER.sub(rf"\1 {CUT}", text))


def without_secrets_in(value: Any) -> Any:
    """Values, or dataclasses of them, with every text in them cut."""
    if isinstance(value, str):
        return without_secrets(value)
    if isinstance(value, dict):
        return {key: without_secrets_in(item) for key, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: without_secrets_in(getattr(value, field.name)) for field in fields(value)})
    return type(value)(map(without_secrets_in, value)) if isinstance(value, (list, tuple)) else value


def _loosely(found: re.Match[str], *, sure: bool) -> str:
    address = ":" not in found["rest"] and (sure or found["user"].lower() in _NO_USER)
    return found[0] if address else f"{found['user']}:{CUT}@"


def _pieces(text: str, *, sure: bool) -> Iterator[str]:
    """The text in pieces, the URIs among them without their secrets."""
    done = 0
    starts = list(_AUTHORITY.finditer(text))
    for number, found in enumerate(starts):
        start = found.end()
        if found.start() < done:
            continue  # within the password of the one before
        later = (other.start() for other in starts[number + 1 : number + 5])
        limits = [limit for limit in later if not _USER.fullmatch(text, start, limit)] or [len(text)]
        # A password may hold :// too: what begins there is no URI while the @ of this one is yet to come.
        limit = next(
            (limit for limit in limits if not _OPEN.fullmatch(text, start, limit)),
            len(text) if len(limits) < 3 else limits[0],
        )
        scheme = (found["scheme"] or found[0]).partition(":")[0].lower()
        user = _user_ends(scheme, text[start:limit], bare=not scheme, sure=sure)
        token = _TOKEN.match(text, start + user, max(limit, start + user))
        assert token is not None
        yield text[done:start] + (f"{CUT}@" if user else "")
        yield _without_tokens(token[0], sure=sure) if scheme or user else token[0]
        done = token.end()
    yield text[done:]


def _user_ends(scheme: str, rest: str, *, bare: bool, sure: bool) -> int:
    """Where user and password end, behind their @; 0 where there are none."""
    found = _TOKEN.match(rest)
    assert found is not None
    token = found[0]
    authority = _SIXTH_VERSION.sub("", re.split(r"[/?#\\]", token, maxsplit=1)[0])
    user, at, _ = authority.rpartition("@")
    if at and ":" not in user and "%3a" not in user.lower():
        azure = scheme in _CONTAINERS and _CONTAINER.match(token)
        return 0 if azure or (sure and not _TOKEN_LIKE.fullmatch(user)) else len(user) + 1
    if at:
        return _last_of(token, len(user))
    if (
        scheme in _BUCKETS
        and _NO_PORT.fullmatch(_END.sub("", authority))
        and "@" not in token
        and not authority.startswith("arn:")
    ):
        return _without_end(token)  # a key, cut off at a slash of its own: no bucket has a colon
    if ":" not in authority or (bare and not _NO_PORT.fullmatch(authority)):
        return 0
    if scheme in _PORTS and not _NO_PORT.fullmatch(authority):
        return 0
    if "@" in token:
        return _last_of(token, len(authority) if not _NO_PORT.fullmatch(authority) else len(token))
    if not _NO_PORT.fullmatch(authority):
        return 0
    if token.endswith(("…", "...")):
        return len(token)  # cut off before its @
    spaced = re.match(r"[^\n]*?@(?:[^\s/@\"'<>]*@)*(?=[\w\[%])", rest)
    return spaced.end() if spaced else 0


def _last_of(token: str, known: int) -> int:
    """Behind the last @, since a password may hold @ and slashes that nobody escaped: rather a path too much than a
    part of it.

    Where that one may be in a query behind the `known` part, all is cut: what follows it may be a secret as well.
    """
    end = token.rfind("@") + 1
    if re.search(r"[?#]", token[known:end]):
        return _without_end(token)
    return end


def _without_end(token: str) -> int:
    closing = _END.search(token)
    return len(token) - len(closing[0] if closing else "")


def _without_tokens(token: str, *, sure: bool) -> str:
    """The rest of a URI, with the values of its query and its fragment cut that may be secret."""
    place, mark, query = token.partition("?")
    if "#" in place:
        place, mark, query = token.partition("#")
    if not mark:
        return token
    end = _END.search(query)
    closing = end[0] if end else ""
    query = query.removesuffix(closing)
    if mark == "#" and query.startswith(("/", "!")):
        # A page of MLflow's UI.
        return place + mark + _without_tokens(query, sure=sure) + closing
    return place + mark + "".join(_pairs(query, sure=sure)) + closing


def _pairs(query: str, *, sure: bool) -> Iterator[str]:
    cut = False
    for piece in re.split(r"((?:&amp;|[&#;?])+)", query):
        if not piece or re.fullmatch(r"(?:&amp;|[&#;?])+", piece):
            yield piece
            continue
        name, equals, value = piece.partition("=")
        if not equals:
            # By itself, or behind a value that held a sign like & itself.
            cut = cut or not (sure or _HARMLESS_VALUE.fullmatch(name))
            yield CUT if cut else piece
            continue
        secret = bool(_SECRET_NAME.fullmatch(unquote(name)))
        harmless = value in ("", CUT) or (
            not secret and bool(_HARMLESS_VALUE.fullmatch(value) or _HARMLESS_NAME.fullmatch(name))
        )
        cut = secret if sure else not harmless
        yield f"{name}={CUT}" if cut else piece


def _secrets(uri: str) -> set[str]:
    """What is secret in a URI, each as it may be quoted by itself."""
    found = _AUTHORITY.search(uri) or re.match(r"[\w+.-]+:", uri)
    if found is None:
        return set()
    scheme, rest = found[0].partition(":")[0].lower(), uri[found.end() :]
    end = _user_ends(scheme, rest, bare=False, sure=False) or (0 if "//" in found[0] else rest.rfind("@") + 1)
    user = rest[:end].removesuffix("@")
    secrets = {user, user.partition(":")[2]}
    for piece in re.split(r"[?&#;]", rest[end:])[1:]:
        name, equals, value = piece.partition("=")
        secret = value if equals else name
        if secret and not _HARMLESS_VALUE.fullmatch(secret) and not (equals and _HARMLESS_NAME.fullmatch(name)):
            secrets |= {secret, piece}
    secrets |= {unquote(secret) for secret in secrets}
    return secrets - {"", CUT}


LIMIT = 400
WHOLE = 8000
"""Characters of a line that is there to be copied: it must not be cut."""
_DANGEROUS = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


def printable(text: str, limit: int = LIMIT) -> str:
    """The text on one line, with what is secret cut, and what could steer a terminal or a reader's eye written as
    an escape.
    """
    text = without_secrets(text)  # before it is made shorter: half a URI cannot be told from a word
    safe = "".join(
        char if unicodedata.category(char) not in _DANGEROUS else _escape(char) for char in text[: limit + 1]
    )
    return safe if len(text) <= limit else safe[: limit - 1] + "…"


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def to_copy(blocks: Iterable[str]) -> list[str]:
    """Blocks of TOML as lines of one: what belongs to the same table stands in it together, each line once."""
    tables: dict[str, dict[str, None]] = {}
    for block in filter(None, blocks):
        head, *lines = block.splitlines()
        # Of an array of tables each is one by itself.
        tables.setdefault(block if head.startswith("[[") else head, {}).update(dict.fromkeys(lines))
    return [printable(line, WHOLE) for head, lines in tables.items() for line in (head.partition("\n")[0], *lines)]


def first_of(names: Sequence[str], most: int) -> str:
    """Names in one line: so many of them, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
