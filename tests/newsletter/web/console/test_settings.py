"""The page of the settings: owners change them, others read them."""

import re
from collections.abc import Callable
from html import unescape

from newsletter.accounts.models import Role
from newsletter.container import Container
from newsletter.settings.load import load
from newsletter.settings.publication import KEYS
from newsletter.web.app import create_app
from newsletter.web.console.publication.settings_page import FIELDS
from tests.newsletter.web.conftest import Browser, Office

PAGE = "/console/settings"


def form(browser: Browser) -> dict[str, str]:
    """The fields of the form as a browser would post them unchanged."""
    text = browser.get(PAGE).text
    fields = dict(re.findall(r'<input class="input" id="[^"]+" name="(\w+)" value="([^"]*)"', text))
    for name, options in re.findall(r'<select [^>]*name="(\w+)"[^>]*>(.*?)</select>', text):
        chosen = re.search(r'value="(\w+)" selected', options)
        assert chosen is not None
        fields[name] = chosen[1]
    version = re.search(r'name="version" value="(\d+)"', text)
    assert version is not None
    return {name: unescape(value) for name, value in fields.items()} | {"version": version[1]}


def test_every_setting_of_the_publication_has_a_field() -> None:
    assert tuple(one.key for group in FIELDS.values() for one in group) == KEYS


def test_an_owner_changes_a_setting_and_the_pages_have_it(office: Office) -> None:
    owner = office.signed_in(Role.OWNER)
    posted = form(owner)
    assert len(posted) == len(KEYS) + 1
    answer = owner.post(PAGE, **posted | {"site_name": "The <b>Paper</b>", "tracking_opens": "off"})
    assert answer.headers["location"] == f"{PAGE}?done=saved"
    text = owner.get(f"{PAGE}?done=saved").text
    assert "The settings are saved." in text
    assert "The &lt;b&gt;Paper&lt;/b&gt;" in text
    assert "<b>Paper" not in text
    assert text.count("Set by owner@example.org") == 2
    assert office.parts.settings.tracking.opens is False
    assert "The &lt;b&gt;Paper" in owner.get("/subscribe").text
    log = owner.get("/console/log").text
    assert "setting changed" in log
    assert "site.name" in log
    assert owner.post(PAGE, **form(owner)).headers["location"] == f"{PAGE}?done=same"
    again = owner.post(f"{PAGE}/unset", key="site.name", version=form(owner)["version"])
    assert again.headers["location"] == f"{PAGE}?done=saved"
    assert office.parts.settings.site.name == "My newsletter"
    assert "Default" in owner.get(PAGE).text


def test_an_empty_field_empties_the_setting_where_that_is_allowed(office: Office) -> None:
    owner = office.signed_in(Role.OWNER)
    owner.post(PAGE, **form(owner) | {"sender_reply_to": "editors@example.org"})
    answer = owner.post(PAGE, **form(owner) | {"sender_reply_to": ""})
    assert answer.headers["location"] == f"{PAGE}?done=saved"
    assert office.parts.settings.sender.reply_to == ""
    answer = owner.post(PAGE, **form(owner) | {"site_name": ""})
    assert 'id="site.name-mistake">This must not be empty.' in answer.text
    assert office.parts.settings.site.name == "My newsletter"


def test_a_mistake_stands_beside_its_field_and_nothing_is_lost(office: Office) -> None:
    owner = office.signed_in(Role.OWNER)
    wrong = {"site_timezone": "Mars", "sender_name": "Olga"}
    answer = owner.post(PAGE, **form(owner) | wrong)
    assert answer.status_code == 400
    assert 'id="site.timezone-mistake">A time zone is written like Europe/Berlin' in answer.text
    assert 'value="Mars"' in answer.text
    assert 'value="Olga"' in answer.text
    assert office.parts.settings.sender.name == "My newsletter"


def test_the_second_of_two_owners_sees_both_values(office: Office) -> None:
    olga = office.signed_in(Role.OWNER, "olga@example.org")
    paul = office.signed_in(Role.OWNER, "paul@example.org")
    before = form(paul)
    olga.post(PAGE, **form(olga) | {"site_name": "Olga's", "site_language": "de"})
    answer = paul.post(PAGE, **before | {"site_name": "Paul's", "sender_name": "Paul"})
    assert answer.status_code == 409
    beside = re.search(r'id="site.name-mistake">([^<]*)<', answer.text)
    assert beside is not None
    for words in ("olga@example.org", "Olga&#39;s", "Paul&#39;s"):
        assert words in beside[1]
    # What he typed stays in the form; what only she changed is hers.
    assert 'name="site_name" value="Paul&#39;s"' in answer.text
    assert 'name="sender_name" value="Paul"' in answer.text
    assert 'name="site_language" value="de"' in answer.text
    version = re.search(r'name="version" value="(\d+)"', answer.text)
    assert version is not None
    second = before | {"site_name": "Paul's", "sender_name": "Paul", "site_language": "de"}
    paul.post(PAGE, **second | {"version": version[1]})
    settings = office.parts.settings
    assert (settings.site.name, settings.sender.name) == ("Paul's", "Paul")
    assert settings.site.language == "de"


def test_others_read_and_machine_settings_are_masked(office: Office) -> None:
    approver = office.signed_in(Role.APPROVER)
    text = approver.get(PAGE).text
    assert "Save settings" not in text
    assert "Owners can change them." in text
    assert "sending.batch_size" in text
    assert "NEWSLETTER_SENDGRID__API_KEY" in text
    assert "SG.test" not in text
    assert approver.post(PAGE, site_name="x", version="0").status_code == 403


def test_what_the_machine_sets_is_read_only_and_says_where(
    environment: dict[str, str], open_office: Callable[..., Office]
) -> None:
    office = open_office(require_second_factor="false")
    parts = Container(load(environment | {"NEWSLETTER_SITE__NAME": "Machine's"}))
    office.parts, office.app = parts, create_app(parts, background=False)
    owner = office.signed_in(Role.OWNER)
    text = owner.get(PAGE).text
    assert "Set in <code>NEWSLETTER_SITE__NAME</code>" in text
    assert re.search(r'id="site.name" name="site_name"[^>]* disabled', text)
    answer = owner.post(PAGE, **form(owner) | {"site_name": "Mine"})
    assert answer.status_code == 400
    assert "wins over the database" in answer.text
    parts.database.dispose()
