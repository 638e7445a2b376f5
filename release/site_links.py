"""For mkdocs: links of the pages that leave docs/ go to the repository, for the site ends there."""

import re
from typing import Any


def on_page_markdown(markdown: str, *, config: Any, **_: Any) -> str:
    return re.sub(r"\]\(\.\./(?=[^)]*\))", f"]({config.repo_url.rstrip('/')}/blob/main/", markdown)
