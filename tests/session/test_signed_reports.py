"""The files of a report are signed when they are complete, also through workers; where that fails it is told."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from gates import POLICIES, Gate, told
from signing import write_keys
from stores import Lab

from mlflow_compliance.production.keys import PublicKey, keys_of
from mlflow_compliance.settings.schema import load_settings

KEYS = '[evidence]\nsign_with = "key.pem"\n'


@pytest.fixture
def keyed(gate: Gate, messy: Lab) -> Gate:
    write_keys(gate.folder, curve=ec.SECP384R1())
    gate.settings(messy.uri, KEYS)
    return gate


def public(gate: Gate) -> PublicKey:
    key = keys_of(load_settings(gate.folder / "compliance.toml")).judging
    assert key is not None
    return key


def verified(gate: Gate, path: Path) -> bool:
    """Whether a file's signature is that of the key, by `openssl` too where it is there."""
    content, signature = path.read_bytes(), Path(f"{path}.sig").read_bytes()
    ours = public(gate).verifies(signature, content, plain=True)
    if shutil.which("openssl"):
        command = ["openssl", "dgst", "-sha256", "-verify", gate.folder / "key.pub", "-signature", f"{path}.sig", path]
        assert (subprocess.run(command, capture_output=True, check=False).returncode == 0) == ours
    return ours


@pytest.mark.parametrize("flags", [[], ["--fix"], ["-n", "2"], ["-p", "no:terminal"]], ids=" ".join)
def test_html_and_junit_are_signed(keyed: Gate, flags: list[str]) -> None:
    page, xml = keyed.folder / "out" / "audit.html", keyed.folder / "audit.xml"
    ours = "--compliance-report=json:audit.json"
    process = bool({"-n", "no:terminal"} & {*flags})
    result = keyed("--html=out/audit.html", f"--junitxml={xml}", ours, *flags, process=process)
    assert result.ret == 1, told(result)  # with --fix too: the model of that store is not known to be safe
    assert verified(keyed, page)
    assert verified(keyed, xml)
    assert verified(keyed, keyed.folder / "audit.json")
    line = f"this report's files are signed (.sig beside each) with the key sha256 {public(keyed).fingerprint}"
    assert line.replace("'", "&#x27;") in page.read_text()
    if "no:terminal" not in flags:
        assert line in told(result)
    page.write_text(page.read_text().replace("FAILED", "PASSED").replace("FIXED", "PASSED"))
    assert not verified(keyed, page)


def test_without_a_key_nothing_is_signed(gate: Gate, messy: Lab) -> None:
    gate("--html=audit.html", f"--junitxml={gate.folder / 'audit.xml'}", rules=gate_rules())
    assert list(gate.folder.glob("*.sig")) == []


def gate_rules() -> list[object]:
    """One quick rule."""
    return [POLICIES / "test_runs.py", "-k", "RUN001"]


def test_a_signature_of_an_earlier_report_gives_way(keyed: Gate) -> None:
    page = keyed.folder / "audit.html"
    Path(f"{page}.sig").write_bytes(b"of an earlier report")
    keyed("--html=audit.html", rules=gate_rules())
    assert verified(keyed, page)
    assert sorted(path.name for path in keyed.folder.glob("audit.html*")) == ["audit.html", "audit.html.sig"]


def test_a_report_that_cannot_be_signed_is_no_success(keyed: Gate) -> None:
    (keyed.folder / "audit.html.sig").mkdir()
    result = keyed("--html=audit.html", rules=[POLICIES / "test_store.py", "-k", "STO003"])
    text = told(result)
    assert f"ERROR: the report {keyed.folder / 'audit.html'} could not be signed (is a directory)" in text
    assert result.ret == 4
    assert list(keyed.folder.glob("audit.html.sig.*")) == []


def test_a_key_that_others_can_read_is_told_in_the_head(keyed: Gate) -> None:
    (keyed.folder / "key.pem").chmod(0o644)
    result = keyed("--html=audit.html", rules=gate_rules())
    line = f"warning: {keyed.folder / 'key.pem'} can be read by others (mode 644): chmod 600 {keyed.folder / 'key.pem'}"
    assert line in told(result)
    assert line in (keyed.folder / "audit.html").read_text()


def test_other_suites_are_not_signed(keyed: Gate) -> None:
    own = keyed.folder / "test_own.py"
    own.write_text("def test_own():\n    pass\n")
    assert keyed("--html=audit.html", rules=[own]).ret == 0
    assert list(keyed.folder.glob("*.sig")) == []
