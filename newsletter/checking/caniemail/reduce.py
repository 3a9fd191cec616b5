"""Reduces the data of the npm package caniemail to what the check ``clients`` uses.

    npm pack caniemail@2.0.2 && tar xzf caniemail-2.0.2.tgz
    python -m newsletter.checking.caniemail.reduce package > \
        newsletter/checking/caniemail/caniemail-2.0.2.json

It keeps the features that can be detected in a page, each with ``finds`` (the signs to look for)
and ``unknown`` (the clients whose latest tested version does not support it). It drops clients
that support it fully or partly, or were not tested.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

#: Titles that match no pattern, or the wrong one.
_SPECIAL_TITLES: dict[str, list[str]] = {
    "initial unit": [],
    "system-ui, ui-serif, ui-sans-serif, ui-rounded, ui-monospace": [],
    "font shorthand": ["property:font"],
    "color-scheme CSS property": ["property:color-scheme"],
    "grid-template-* properties": [
        "property:grid-template",
        "property:grid-template-areas",
        "property:grid-template-columns",
        "property:grid-template-rows",
    ],
    "css column properties": ["property:columns", "property:column-width", "property:column-rule"],
    "CSS calc() function": ["function:calc"],
    "CSS Variables (Custom Properties)": ["function:var"],
    "@media (hover), @media (any-hover)": ["media:hover", "media:any-hover"],
    "@media (-webkit-device-pixel-ratio)": ["media:-webkit-min-device-pixel-ratio"],
    "Attribute selector": ["selector:["],
    "General sibling combinator": ["selector:~"],
    "<ul>, <ol> and <dl>": ["element:ul", "element:ol", "element:dl"],
    "<h1> to <h6> elements": [f"element:h{n}" for n in range(1, 7)],
    "Embedded <svg> image": ["element:svg"],
    "srcset and sizes attributes": ["attribute:srcset"],
    "HTML5 semantics": [
        f"element:{name}"
        for name in ("article", "aside", "figure", "footer", "header", "main", "nav", "section")
    ],
    "Image maps": ["element:map"],
    "lang()": ["pseudo:lang"],
    "Animated PNG image format": ["image:apng"],
    "Base 64 image format": ["image:data"],
    "HEIF image format": ["image:heic", "image:heif"],
    "JPG image format": ["image:jpg", "image:jpeg"],
    "TIFF image format": ["image:tif", "image:tiff"],
    "Video as Image Assets": ["image:mp4"],
}
#: A title's pattern, and the kind of sign that its first group names.
_PATTERNS = (
    (r"([a-z-]+)(?: property)?", "property"),
    (r"([a-z-]+: ?[a-z-]+)", "value"),
    (r"((?:[a-z-]+\(\)(?:, )?)+)", "function"),
    (r"@([a-z-]+)", "at"),
    (r"@media \(([a-z-]+)\)", "media"),
    (r"::?([a-z-]+)(?:\(\))?", "pseudo"),
    (r"([a-z]+) unit", "unit"),
    (r"([a-z-]+(?:(?:, | & )[a-z-]+)+)", "property"),
    (r"<([a-z]+)>(?: element)?", "element"),
    (r"([a-z-]+) attribute", "attribute"),
    (r"(?:\S+ )?(AVIF|BMP|GIF|HDR|ICO|PNG|SVG|webP) image format", "image"),
)


def finds(slug: str, title: str) -> list[str]:
    """The signs of a feature in a page, by its title; empty if it cannot be detected."""
    if title in _SPECIAL_TITLES:
        return _SPECIAL_TITLES[title]
    for form, kind in _PATTERNS:
        if kind in {"property", "value"} and not slug.startswith("css-"):
            continue
        if match := re.fullmatch(form, title.strip()):
            names = re.split(r", | & ", match[1].replace("()", "").rstrip(", "))
            return [f"{kind}:{name.replace(' ', '').lower()}" for name in names]
    return []


def reduced(package: Path) -> dict[str, Any]:
    """The content of the vendored file, from an unpacked package."""
    about = json.loads((package / "package.json").read_text())
    data = json.loads((package / "data" / "caniemail.json").read_text())
    features = []
    for feature in data["data"]:
        signs = finds(feature["slug"], feature["title"])
        unknown = sorted(
            f"{family}.{platform}"
            for family, platforms in feature["stats"].items()
            for platform, versions in platforms.items()
            if versions and list(versions.values())[-1].startswith("n")
        )
        if signs and unknown:
            features.append(
                {
                    "slug": feature["slug"],
                    "title": feature["title"].strip(),
                    "finds": signs,
                    "unknown": " ".join(unknown),
                }
            )
    clients = {
        f"{family}.{platform}"
        for feature in data["data"]
        for family, platforms in feature["stats"].items()
        for platform in platforms
    }
    names = data["nicenames"]
    return {
        "package": f"{about['name']} {about['version']}, {about['license']}",
        "updated": data["last_update_date"][:10],
        "clients": {client: _name(client, names) for client in sorted(clients)},
        "features": features,
    }


def _name(client: str, names: dict[str, dict[str, str]]) -> str:
    family, platform = client.split(".")
    if platform in {"outlook-com", "windows-mail"}:
        return names["platform"][platform]
    return f"{names['family'][family]} ({names['platform'][platform]})"


if __name__ == "__main__":
    found = reduced(Path(sys.argv[1]))
    # One feature on each line, so that versions can be compared with diff.
    lines = ",\n".join(json.dumps(one, ensure_ascii=False) for one in found.pop("features"))
    head = json.dumps(found, ensure_ascii=False, indent=1).removesuffix("\n}")
    sys.stdout.write(f'{head},\n "features": [\n{lines}\n ]\n}}\n')
