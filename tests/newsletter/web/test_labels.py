"""Pages and emails use the terms of the glossary, and name no command of the command line."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import newsletter

_PACKAGE = Path(newsletter.__file__).parent
#: The third column of the glossary (ARCHITECTURE.md) and what else no label says.
_FORBIDDEN = re.compile(
    r"\b("
    r"person|somebody|whoever|barred|left out|leave out|objection|came back|put off|"
    r"called spam|called it spam|let go out|handed over|in doubt|doubtful|doubted|lot|alarm|"
    r"notices|journal|crew|firing|trial|arm|crown|take over|taken over|take these people over|"
    r"look at it|look who gets it|but not those of|fold|tidy up|mend|mails?|"
    r"newsletter (?:serve|worker|send|sends|stats|user|segment|subscribers|schedule|db|doctor)"
    r")\b",
    re.IGNORECASE,
)
#: A value that programs compare, not a label.
_VALUES = {"check your mail"}
_COMMENT = re.compile(r"\{#.*?#\}", re.DOTALL)
_EXPRESSION = re.compile(r"\{\{(.*?)\}\}|\{%(.*?)%\}", re.DOTALL)
_LITERAL = re.compile(r'"([^"\n]*)"')
_READ_ALOUD = re.compile(r'\b(?:aria-label|title|placeholder|alt)="([^"]*)"')
_TAG = re.compile(r"<[^>]*>", re.DOTALL)
#: Code in a text is data, not a label.
_DATA = re.compile(r"<code>.*?</code>", re.DOTALL)

_TEMPLATES = sorted(
    (*(_PACKAGE / "web/pages").rglob("*.html"), *(_PACKAGE / "sandbox/pages").glob("*.html"))
)
_MODULES = [
    *sorted((_PACKAGE / "web/public").glob("*.py")),
    _PACKAGE / "scheduling/operator_emails.py",
    _PACKAGE / "operations/account_emails.py",
    _PACKAGE / "web/console/base/layout.py",
    _PACKAGE / "web/console/dashboard/attention.py",
    _PACKAGE / "web/console/dashboard/overview.py",
    _PACKAGE / "web/console/sends/progress.py",
    _PACKAGE / "web/console/subscribers/history_labels.py",
    _PACKAGE / "web/errors.py",
]


@pytest.mark.parametrize("path", _TEMPLATES, ids=lambda path: path.name)
def test_a_template_uses_the_terms_of_the_glossary(path: Path) -> None:
    assert forbidden_in(template_texts(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("path", _MODULES, ids=lambda path: path.name)
def test_a_module_with_labels_uses_the_terms_of_the_glossary(path: Path) -> None:
    assert forbidden_in(module_texts(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "template",
    [
        "<p>Look who gets it</p>",
        '<a href="/" aria-label="Leave out a day"></a>',
        '{{ well("A mail is on its way.") }}',
        '{% set words = {"done": "In doubt"} %}',
        "<p>Run newsletter segment create</p>",
    ],
)
def test_a_forbidden_term_is_found_in_text_attributes_and_expressions(template: str) -> None:
    assert forbidden_in(template_texts(template)) != []


@pytest.mark.parametrize(
    "template",
    [
        "{# Somebody reads this comment. #}",
        '<div class="mail-frame" id="doubt">{{ person.name }}</div>',
        '{% if part == "mail" %}Email{% endif %}',
    ],
)
def test_comments_names_and_values_are_no_labels(template: str) -> None:
    assert forbidden_in(template_texts(template)) == []


def forbidden_in(texts: Iterator[str]) -> list[str]:
    """The texts with a forbidden term."""
    return [text for text in texts if _FORBIDDEN.search(text) and text not in _VALUES]


def template_texts(source: str) -> Iterator[str]:
    """What a template shows: text, attributes that are read aloud, and literals that are labels."""
    source = _DATA.sub(" ", _COMMENT.sub(" ", source))
    for expression in _EXPRESSION.finditer(source):
        yield from filter(_is_label, _LITERAL.findall(expression[1] or expression[2]))
    plain = _EXPRESSION.sub(" … ", source)
    yield from _READ_ALOUD.findall(plain)
    yield from _TAG.sub("\n", plain).splitlines()


def module_texts(source: str) -> Iterator[str]:
    """The literals of a module that are labels; docstrings are none."""
    tree = ast.parse(source)
    docstrings = {
        id(parent.body[0].value)
        for parent in ast.walk(tree)
        if isinstance(parent, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and isinstance(parent.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if id(node) in docstrings or not isinstance(node, ast.Constant):
            continue
        if isinstance(node.value, str) and _is_label(node.value):
            yield node.value


def _is_label(literal: str) -> bool:
    """A key or a value of a form is one word in lower case, a path, or markup."""
    return (" " in literal or literal[:1].isupper()) and not literal.startswith(("/", "<"))
