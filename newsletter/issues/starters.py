"""Template texts for new issues: complete, valid, and short enough to overwrite."""

from datetime import date
from typing import Final

_LETTER = """\
---
subject: What is new, {{{{ name | default("reader") }}}}
preheader: One sentence that makes people open it.
title: What is new
template: letter
slug: letter-{day}
date: {day}
---

Dear {{{{ name | default("reader") }}}},

write here. **Markdown** works: [a link](https://example.com/), lists and pictures.

## A heading

- What happened.
- Why it matters.
"""

_DIGEST = """\
---
subject: "Our digest — {day}"
preheader: One sentence that makes people open it.
template: digest
slug: digest-{day}
date: {day}
---

## Signal of the Day

The one thing that people should know today. When the first section is prose, it is set larger.

## Deep Dives

### The title of a story

*Organization* · [Source](https://example.com/story)

What it says, and why it matters.
"""

#: By the name of the template.
STARTERS: Final = {"letter": _LETTER, "digest": _DIGEST}


def starter(template: str, day: date) -> str:
    """The template text for a new issue of that day; an unknown template gets the letter's."""
    return STARTERS.get(template, _LETTER).format(day=day.isoformat())
