"""A preview is what the person gets, as their client shows it."""

import re

from newsletter.rendering.preview import SAMPLE_READER, UNKNOWN_READER, Scheme, preview
from tests.newsletter.rendering.conftest import ALICE, Make

BODY = (
    "Dear {{ name | default('reader') }}, see ![A chart](https://example.com/a.png){width=300}\n"
    '`<img src="x">` and `url(x)` and color-scheme: light dark are words.'
)


def test_values_are_the_persons_and_defaults_a_strangers(letter: Make) -> None:
    made = letter(BODY, subject="'For {{ name | default(\"you\") }}'")
    assert preview(made, SAMPLE_READER).subject == "For Robin Example"
    assert preview(made, UNKNOWN_READER).subject == "For you"
    assert "Dear reader, see" in preview(made, UNKNOWN_READER).text
    assert "Dear Alice, see" in preview(made, ALICE).html


def test_links_of_a_preview_open_nothing(letter: Make) -> None:
    shown = preview(letter("Hi"), ALICE)
    assert "/unsubscribe/preview" in shown.html
    assert "/unsubscribe/preview" in shown.text


def test_pictures_can_be_left_out_and_their_words_and_sizes_stay(letter: Make) -> None:
    made = letter(BODY)
    with_images, without = preview(made, ALICE).html, preview(made, ALICE, images=False).html
    assert '<img src="https://example.com/a.png" alt="A chart" width="300"' in with_images
    assert "a.png" not in without
    assert '<img alt="A chart" width="300"' in without
    assert "url(x)" in without
    assert "&lt;img src=" in without


def test_a_scheme_is_shown_whatever_the_browsers_own_is(letter: Make) -> None:
    made = letter(BODY)
    plain, dark, light = (
        preview(made, ALICE, scheme=scheme).html for scheme in (None, Scheme.DARK, Scheme.LIGHT)
    )
    assert "prefers-color-scheme" in plain
    assert re.search(r"@media all\s*\{\s*body, \.page \{ background-color: #151413", dark)
    assert re.search(r"@media not all\s*\{\s*body, \.page", light)
    for html, word in ((dark, "dark"), (light, "light")):
        assert f'<meta name="color-scheme" content="{word}">' in html
        assert f"color-scheme: {word};" in html
        assert "color-scheme: light dark are words" in html
