"""Reads the data of caniemail.com on features that email clients lack, vendored in caniemail/."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

_DATA: Final = Path(__file__).parent / "caniemail" / "caniemail-2.0.2.json"


@dataclass(frozen=True, slots=True)
class Feature:
    """A feature that some clients do not support.

    ``finds`` are the signs that a page uses it, ``unknown`` the ids of the clients.
    """

    slug: str
    title: str
    finds: frozenset[str]
    unknown: frozenset[str]


@dataclass(frozen=True, slots=True)
class Support:
    """The data: clients by their ids, and features."""

    names: Mapping[str, str]
    features: tuple[Feature, ...]


@cache
def support() -> Support:
    """The vendored data, read once."""
    data = json.loads(_DATA.read_text(encoding="utf-8"))
    features = (
        Feature(
            one["slug"], one["title"], frozenset(one["finds"]), frozenset(one["unknown"].split())
        )
        for one in data["features"]
    )
    return Support(data["clients"], tuple(features))
