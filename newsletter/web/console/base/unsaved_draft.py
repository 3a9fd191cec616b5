"""Gives back an editor's text when its session had ended before the post."""

from fastapi import Request, Response

from newsletter.web.console.base.layout import page


async def restored_draft(request: Request, sign_in_path: str) -> Response | None:
    """A page with the text that could not be saved; None for posts without one.

    Only called after the origin of the post was checked. After signing in again the cookie has
    changed, so posting this page leads here once more.
    """
    if not request.url.path.endswith("edit"):
        return None
    form = await request.form()
    text, base = (str(form.get(name, "")) for name in ("text", "base"))
    if not text:
        return None
    return page(
        request,
        "kept.html",
        status=403,
        text=text,
        base=base,
        action=request.url.path,
        sign_in=sign_in_path,
    )
