"""The codes of the built-in policies: baselines, waivers and other people's programs name findings by them."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from typing import TYPE_CHECKING

from repairs import CHECKOUT, remedies, rules

from mlflow_compliance.snapshot.schema import SchemaState

if TYPE_CHECKING:
    from collections.abc import Iterator

RECORDS = {"violations.add", "violations.offer", "violations.not_evaluated"}
"""What a check records by: methods of Violations that take a code first."""

NOTES = {"RET002", "RUN004"}
"""Rules that only tell a reader something, and never fail."""
CODES = {
    "ART001": ["duplicate", "equal-archives", "not-compared"],
    "ART002": ["ownerless", "unknown-owner"],
    "ART003": ["relocated", "unreachable"],
    "ART004": [
        "changed",
        "gone",
        "journal-not-read",
        "kept-journal-differs",
        "no-hash",
        "no-record",
        "not-looked-at",
        "unreadable",
        "{problem.code}",
    ],
    "ART005": ["incomplete"],
    "ART006": ["manifest", "owned"],
    "EXP001": [
        "claimed-twice",
        "named-like-production",
        "no-production",
        "primary-missing",
        "primary-not-in-force",
        "production-elsewhere",
        "rival",
        "several-productions",
    ],
    "EXP002": ["named-like-a-test", "test"],
    "EXP003": [
        "archive-not-described",
        "development-not-archived",
        "mark-spelled-otherwise",
        "production-of-no-product",
        "unclassified",
    ],
    "EXP004": ["name-taken"],
    "EXP005": ["default-deleted"],
    "MOD001": ["incomplete", "no-model", "no-production-run"],
    "MOD002": ["not-known-to-be-safe"],
    "MOD003": ["does-not-load", "no-model"],
    "MOD004": ["no-environment", "no-example", "no-model", "no-signature", "not-pinned"],
    "MOD005": ["does-not-score", "no-model", "other-probabilities"],
    "MOD006": ["half-made"],
    "PRD001": ["missing", "no-production-run"],
    "PRD002": ["missing", "no-production-run", "not-a-number"],
    "PRD003": ["missing", "no-production-run"],
    "PRD004": ["missing", "no-production-run"],
    "PRD005": ["contradiction", "does-not-follow", "no-production-run", "not-recomputed"],
    "PRD006": ["metadata-unusable", "no-production-run", "several-values"],
    "PRD007": [
        "feature-count-differs",
        "feature-names-differ",
        "hyperparameter-differs",
        "metadata-unusable",
        "model-not-asked",
        "no-model",
    ],
    "PRD008": ["no-product"],
    "PRD009": ["no-production-run", "not-looked-at", "{item.code}"],
    "REG001": [
        "alias-does-not-resolve",
        "alias-names-another-run",
        "alias-names-no-run",
        "no-registered-model",
        "version-fetched-from-elsewhere",
    ],
    "REG002": ["incomplete", "no-model"],
    "REG003": ["stage"],
    "REG004": ["experiment-deleted", "model-deleted", "run-deleted", "run-gone"],
    "REG005": ["alias-without-version"],
    "REG006": ["alias-of-no-product"],
    "RET001": ["experiment-deleted", "model-deleted", "models-not-shown", "run-deleted"],
    "RUN001": ["stuck"],
    "RUN002": ["no-production-run", "not-finished", "production-in-archive", "several-production-runs"],
    "RUN003": ["parent-deleted", "parent-gone"],
    "SRV001": ["another-model", "files-missing", "no-production-run", "not-on-record", "nothing-loads"],
    "SRV002": ["no-production-run", "not-served"],
    "STO001": ["clashes", "repeats", "without-experiment"],
    "STO002": ["rows-not-listed", "{lost.table}-without-{lost.parent}"],
    "STO003": ["{schema.state.value}"],
    "STO004": ["older-than-its-files"],
    "STO005": ["{file.code}"],
    "TRC001": ["files-without-row", "in-progress", "not-looked-at"],
}


def spelled(code: ast.expr) -> Iterator[str]:
    """The codes that an expression may be; one that is made when the check runs as it stands in the source, in
    braces.
    """
    if isinstance(code, ast.Constant):
        yield str(code.value)
    elif isinstance(code, ast.IfExp):
        yield from spelled(code.body)
        yield from spelled(code.orelse)
    elif isinstance(code, ast.JoinedStr):
        yield "".join(
            part.value if isinstance(part, ast.Constant) else f"{{{ast.unparse(part.value)}}}" for part in code.values
        )  # type: ignore[misc, attr-defined]
    else:
        yield f"{{{ast.unparse(code)}}}"


def policy_of(function: ast.FunctionDef) -> str:
    """The id in the decorator of a check, empty for other functions."""
    calls = [
        item
        for item in function.decorator_list
        if isinstance(item, ast.Call) and getattr(item.func, "id", "") == "policy"
    ]
    return str(ast.literal_eval(calls[0].args[0])) if calls else ""


def codes_in_source() -> dict[str, set[str]]:
    """Policy id -> every code that its check, or a function of its module that it calls, records something under."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in sorted((CHECKOUT / "policies").glob("test_*.py")):
        functions = {
            item.name: item for item in ast.parse(path.read_text("utf-8")).body if isinstance(item, ast.FunctionDef)
        }
        for function in functions.values():
            policy_id, seen, waiting = policy_of(function), set[str](), [function.name]
            while policy_id and waiting:
                name = waiting.pop()
                seen.add(name)
                for node in ast.walk(functions[name]):
                    if isinstance(node, ast.Name) and node.id in functions.keys() - seen:
                        waiting.append(node.id)
                    elif isinstance(node, ast.Call) and ast.unparse(node.func) in RECORDS:
                        found[policy_id].update(spelled(node.args[0]))
    return found


def test_codes_are_an_interface() -> None:
    found = {policy_id: sorted(codes) for policy_id, codes in sorted(codes_in_source().items())}
    assert found == CODES, (
        "a code of a finding was changed, added or removed. Codes are an interface: baselines, waivers and other "
        "people's programs name "
        "findings by policy, code and entity. Where it is meant, change the list in this test, and tell it in "
        "CHANGELOG.md"
    )
    assert found.keys() | NOTES == {rule.id for rule in rules()}
    assert not found.keys() & NOTES


def test_states_of_a_schema_are_codes_of_sto003() -> None:
    assert sorted(state.value for state in SchemaState if state is not SchemaState.CURRENT) == [
        "half-upgraded",
        "incomplete",
        "none",
        "older",
        "several",
        "unknown",
    ]


def test_what_is_wrong_with_a_signature() -> None:
    """The codes of ART004 that come from the one verdict on a bundle."""
    source = ast.parse((CHECKOUT / "src/mlflow_compliance/production/signature.py").read_text("utf-8"))
    words = [node.value for node in ast.walk(source) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    codes = {word for word in words if re.fullmatch(r"[a-z]+(-[a-z]+)+", word)} - {"mlflow-artifacts"}
    assert codes == {
        "bundle-unreadable",
        "file-not-signed",
        "file-unreadable",
        "model-not-signed",
        "signature-does-not-verify",
        "signed-as-another",
        "signed-file-changed",
        "signed-file-missing",
        "signed-with-another-key",
    }


def test_what_is_wrong_in_a_file_store_has_a_way_out() -> None:
    """STO005 takes its codes from the reader of file stores: each has advice of its own."""
    reader = ast.parse((CHECKOUT / "src/mlflow_compliance/store/backends/file_rows.py").read_text("utf-8"))
    words = {node.value for node in ast.walk(reader) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    advised = vars(__import__(remedies()["STO005"].__module__, fromlist=["_WAYS_OUT"]))["_WAYS_OUT"]
    assert sorted(advised) == [
        "empty-value",
        "meta-broken",
        "meta-empty",
        "meta-missing",
        "meta-of-another",
        "metric-broken",
        "metric-empty",
        "not-utf-8",
        "run-among-experiments",
        "too-large",
        "unreadable",
    ]
    assert set(advised) <= words


def test_codes_of_contradictions_are_codes_of_prd009() -> None:
    module = ast.parse((CHECKOUT / "src/mlflow_compliance/production/agreement.py").read_text("utf-8"))
    calls = [
        node for node in ast.walk(module) if isinstance(node, ast.Call) and ast.unparse(node.func) == "Contradiction"
    ]
    codes = {code for node in calls for code in spelled(node.args[0])}
    assert codes == {"cost-differs", "date-differs", "id-differs", "metric-differs", "model-differs"}


def test_every_policy_says_what_people_can_do() -> None:
    """Also beside a fixer: what --fix would do and what people can do are two things."""
    assert [rule.id for rule in rules() if not rule.advice] == []
    assert remedies().keys() <= {rule.id for rule in rules()}


def test_fixers_read_no_words() -> None:
    """What a finding says to people may change any day: a fixer goes by its code, entity and name, or asks the
    snapshot.
    """
    for path in sorted((CHECKOUT / "fixers").glob("*.py")):
        read = [node.attr for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Attribute)]
        assert not {"message", "observed", "expected"} & set(read), path.name
