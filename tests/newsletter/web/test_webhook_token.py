"""OAuth for the event webhook: SendGrid trades its id and secret for a token, and brings that."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from starlette.testclient import TestClient

from newsletter.container import Container
from newsletter.errors import SettingsError
from newsletter.links import Purpose
from newsletter.settings.load import load
from newsletter.web.app import create_app
from tests.newsletter.web.hooks.test_sendgrid_events import (
    EVENT,
    PATH,
    PUBLIC,
    body_of,
    signed,
    stored,
)

ID, SECRET = "sendgrid", "0123456789-abcdefghijklmnopqrstu_"
TOKEN = "/webhooks/sendgrid/token"
FORM = {"grant_type": "client_credentials", "client_id": ID, "client_secret": SECRET}


@pytest.fixture
def make_parts(environment: dict[str, str]) -> Iterator[Callable[..., Container]]:
    made = []

    def make(client_id: str = ID, secret: str = SECRET) -> Container:
        own = {
            "NEWSLETTER_SENDGRID__WEBHOOK_PUBLIC_KEYS": PUBLIC,
            "NEWSLETTER_SENDGRID__WEBHOOK_CLIENT_ID": client_id,
            "NEWSLETTER_SENDGRID__WEBHOOK_CLIENT_SECRET": secret,
        }
        made.append(Container(load(environment | own)))
        return made[-1]

    yield make
    for parts in made:
        parts.database.dispose()


@pytest.fixture
def parts(make_parts: Callable[..., Container]) -> Container:
    return make_parts()


@pytest.fixture
def client(parts: Container) -> Iterator[TestClient]:
    with TestClient(create_app(parts, background=False)) as client:
        yield client


def post(client: TestClient, token: str | None, *, sign: bool = True) -> int:
    body = body_of(EVENT)
    headers: dict[str, Any] = {**signed(body)} if sign else {}
    if token is not None:
        headers["Authorization"] = token.encode("latin-1")
    return client.post(PATH, content=body, headers=headers).status_code


@pytest.mark.parametrize(
    "how",
    [
        {"auth": (ID, SECRET), "data": {"grant_type": "client_credentials"}},
        {"auth": (ID, SECRET)},
        {"data": FORM},
    ],
)
def test_a_token_from_us_lets_signed_posts_in(
    client: TestClient, parts: Container, how: dict[str, Any]
) -> None:
    answer = client.post(TOKEN, **how)
    told = answer.json()
    assert (answer.status_code, told["token_type"], told["expires_in"]) == (200, "Bearer", 3600)
    assert answer.headers["cache-control"] == "no-store"
    assert post(client, f"Bearer {told['access_token']}") == 200
    assert stored(parts) == 1


def test_a_signature_alone_and_a_token_alone_are_not_enough(
    client: TestClient, parts: Container
) -> None:
    token = client.post(TOKEN, data=FORM).json()["access_token"]
    assert post(client, None) == 401
    assert post(client, f"Bearer {token}", sign=False) == 401
    assert stored(parts) == 0


def test_tokens_for_something_else_bent_or_unsigned_ones_open_nothing(
    client: TestClient, parts: Container
) -> None:
    token = client.post(TOKEN, data=FORM).json()["access_token"]
    reader = parts.links.token(Purpose.RECIPIENT, 1, 1)
    bent = token[:-1] + ("A" if token[-1] != "A" else "B")
    for wrong in (bent, reader, "", "\xff", "x" * 5000):
        assert post(client, f"Bearer {wrong}") == 401, wrong
    for wrong in (token, f"Basic {token}", "Bearer", ""):
        assert post(client, wrong) == 401, wrong
    assert stored(parts) == 0


def test_a_token_lasts_an_hour(client: TestClient) -> None:
    token = client.post(TOKEN, data=FORM).json()["access_token"]
    later = datetime.now(UTC) + timedelta(minutes=59)
    with time_machine.travel(later):
        assert post(client, f"Bearer {token}") == 200
    with time_machine.travel(later + timedelta(minutes=2)):
        assert post(client, f"Bearer {token}") == 401


def test_a_token_ends_with_its_secret(
    client: TestClient, make_parts: Callable[..., Container]
) -> None:
    token = client.post(TOKEN, data=FORM).json()["access_token"]
    for other in (make_parts(secret="x" * 32), make_parts(client_id="other")):
        with TestClient(create_app(other, background=False)) as later:
            assert post(later, f"Bearer {token}") == 401


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"data": FORM | {"client_secret": SECRET + "x"}},
        {"data": FORM | {"client_id": ""}},
        {"data": FORM | {"client_secret": ""}},
        {"auth": (ID, "")},
        {"auth": (SECRET, ID)},
        {"headers": {"Authorization": "Basic ÿ"}, "data": FORM},
        {"headers": {"Authorization": "Basic not base64"}},
    ],
)
def test_a_wrong_pair_gets_no_token(client: TestClient, how: dict[str, Any]) -> None:
    if "headers" in how:
        how = {**how, "headers": {k: v.encode("latin-1") for k, v in how["headers"].items()}}
    answer = client.post(TOKEN, **how)
    assert (answer.status_code, answer.json()) == (401, {"error": "invalid_client"})
    assert answer.headers["www-authenticate"] == "Basic"


def test_many_wrong_pairs_are_stopped_and_the_right_one_still_passes(client: TestClient) -> None:
    wrong = FORM | {"client_secret": "x" * 32}
    answers = [client.post(TOKEN, data=wrong).status_code for _ in range(22)]
    assert answers == [401] * 20 + [429] * 2
    assert client.post(TOKEN, data=FORM).status_code == 200


def test_another_grant_or_an_endless_form_is_told_so(client: TestClient) -> None:
    answer = client.post(TOKEN, data=FORM | {"grant_type": "password"})
    assert (answer.status_code, answer.json()) == (400, {"error": "unsupported_grant_type"})
    many = "&".join(f"a{n}=b" for n in range(30))
    assert client.post(TOKEN, content=many).json() == {"error": "invalid_request"}
    assert client.post(TOKEN, content=b"x" * 10_000).status_code == 413


def test_without_the_settings_there_is_no_such_door_and_no_token_is_asked_for(
    make_parts: Callable[..., Container],
) -> None:
    with TestClient(create_app(make_parts("", ""), background=False)) as client:
        assert client.post(TOKEN, data=FORM).status_code == 404
        assert client.post(TOKEN, data={"client_id": "", "client_secret": ""}).status_code == 404
        assert post(client, None) == 200


def test_half_a_pair_is_a_mistake_in_the_settings(environment: dict[str, str]) -> None:
    environment["NEWSLETTER_SENDGRID__WEBHOOK_CLIENT_ID"] = ID
    with pytest.raises(SettingsError, match="set together"):
        load(environment)
