"""The chat page: one file, which may load and run nothing but what it holds itself."""

import base64
import hashlib
import re
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


def page_route() -> Route:
    """Serves the page at `/`."""
    content = files("edge_runtime.api").joinpath("chat_page.html").read_bytes()
    headers = {
        "Content-Security-Policy": content_policy(content.decode()),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }

    async def show(_: Request) -> Response:
        return Response(content, headers=headers, media_type="text/html")

    return Route("/", show)


def content_policy(page: str) -> str:
    """What a browser may do with the page: its own script and style, and calls to this device."""
    scripts = " ".join(_hash_of(text) for text in re.findall(r"<script>(.*?)</script>", page, re.S))
    styles = " ".join(_hash_of(text) for text in re.findall(r"<style>(.*?)</style>", page, re.S))
    return (
        f"default-src 'none'; script-src {scripts}; style-src {styles}; connect-src 'self';"
        " img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _hash_of(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"
