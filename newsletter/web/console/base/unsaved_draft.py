"""What somebody typed, given back where its post could not be done: their session had ended."""

from fastapi import Request, Response

from newsletter.web.console.base.layout import page


async def given_back(request: Request, sign_in_path: str) -> Response | None:
    """The text that an editor posted in vain. Its form was ours: where it came from was looked at.

    Whoever signs in on the way has another cookie then, and gets here once more.
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
