"""Fields of a signup: what can be used comes through whole, what cannot is named."""

import pytest

from subscribers.email_address import parse
from subscribers.signup.form import UNNAMED, Signup, SignupError, SignupRules, parse_signup

RULES = SignupRules(
    topics=["engineering"],
    fields=["company", "empty"],
    wording="I want it.",
    refuse_disposable=True,
)


def problems(**fields: object) -> dict[str, str]:
    with pytest.raises(SignupError) as caught:
        parse_signup({"email": "ada@example.org", **fields}, RULES)
    return {problem.field: problem.message for problem in caught.value.problems}


def test_a_whole_form_becomes_a_signup() -> None:
    fields = {
        "email": " Ada@Example.org ",
        "name": " Ada Lovelace ",
        "topics": ["engineering", "", "engineering"],
        "attributes": {"company": "R&D <b>{{name}}</b>", "empty": "  "},
        "language": "de-AT",
        "timezone": "Europe/Vienna",
        "form": "footer",
    }
    assert parse_signup(fields, RULES, ip="192.0.2.1", user_agent="x") == Signup(
        parse("Ada@example.org"),
        "Ada Lovelace",
        ("engineering",),
        {"company": "R&D <b>{{name}}</b>"},
        "de-AT",
        "Europe/Vienna",
        "footer",
        "I want it.",
        "192.0.2.1",
        "x",
    )


def test_an_address_alone_is_enough() -> None:
    wish = parse_signup({"email": "ada@bücher.example"}, RULES)
    assert (wish.address.email, wish.form) == ("ada@xn--bcher-kva.example", UNNAMED)
    assert parse_signup({"email": "a@b.example", "topics": "engineering"}, RULES).topics == (
        "engineering",
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("email", ""),
        ("email", None),
        ("email", 5),
        ("email", ["ada@example.org"]),
        ("email", "ada"),
        ("email", "ada@example.org, bob@example.org"),
        ("email", "ada@example.org\nbcc: bob@example.org"),
        ("email", "a" * 400 + "@example.org"),
        ("email", "ada@mailinator.com"),
        ("email", "ada@mx.mailinator.com"),
        ("name", "Ada\x00"),
        ("name", "Ada\nBcc: bob@example.org"),
        ("name", "Ada \u202egnp.exe"),
        ("name", "\ud800"),
        ("name", "x" * 201),
        ("name", {"first": "Ada"}),
        ("topics", ["nonsense"]),
        ("topics", ["engineering"] * 101),
        ("topics", [5]),
        ("topics", 5),
        ("attributes", {"Company": "x"}),
        ("attributes", {"1st": "x"}),
        ("attributes", {"a b": "x"}),
        ("attributes", {"__proto__": "x"}),
        ("attributes", {f"f{n}": "x" for n in range(21)}),
        ("attributes", ["x"]),
        ("attributes.plan", {"plan": "pro"}),
        ("attributes.plan", {"plan": ""}),
        ("attributes.tags", {"tags": ["vip"]}),
        ("attributes.company", {"company": "x" * 501}),
        ("attributes.company", {"company": "x\x00"}),
        ("attributes.company", {"company": 5}),
        ("language", "deutsch!"),
        ("language", "x" * 36),
        ("timezone", "Mars/Olympus"),
        ("timezone", "../../etc/passwd"),
        ("form", "Footer Form"),
    ],
)
def test_what_cannot_be_used_is_named_by_its_field(field: str, value: object) -> None:
    found = problems(**{field.partition(".")[0]: value})
    assert list(found) == [field]
    assert found[field]


def test_everything_wrong_is_said_at_once() -> None:
    found = problems(email="x", name="\x00", language="!", timezone="x", topics=["x"])
    assert list(found) == ["email", "name", "topics", "language", "timezone"]


def test_the_mail_hosts_are_asked_last_and_only_of_what_is_well_formed() -> None:
    asked: list[str] = []

    def accepts_email(domain: str) -> bool:
        asked.append(domain)
        return domain != "nomail.example"

    rules = SignupRules(topics=[], accepts_email=accepts_email)
    with pytest.raises(SignupError):
        parse_signup({"email": "a@example.org", "name": "\x00"}, rules)
    assert asked == []
    assert parse_signup({"email": "a@example.org"}, rules)
    with pytest.raises(SignupError, match="does not accept email"):
        parse_signup({"email": "a@nomail.example"}, rules)
    assert asked == ["example.org", "nomail.example"]
