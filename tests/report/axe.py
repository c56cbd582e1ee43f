"""A report in headless Chromium with axe beside it: what a check of accessibility finds."""

from __future__ import annotations

import html
import importlib.util
import json
import re
import subprocess
from pathlib import Path
from typing import Any

from report.browser import chromium

RULES = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice")
_RUN = """
const style = document.querySelector("style");
const STYLE = style.textContent;
const told = {{}};
// Of rules that pass, one element is enough: to name every one takes longer than to look.
const resultTypes = ["violations"];
// In the dark only colours are other ones.
const rules = {{
  light: {{type: "tag", values: {rules}}},
  dark: {{type: "rule", values: ["color-contrast"]}},
}};
const root = document.documentElement;
(async () => {{
  for (const [scheme, query] of [["light", "@media not all"], ["dark", "@media all"]]) {{
    style.textContent = STYLE.replace("@media (prefers-color-scheme: dark)", query);
    const found = await axe.run(document, {{runOnly: rules[scheme], resultTypes}});
    told[scheme] = {{
      violations: found.violations.flatMap(rule => rule.nodes.map(
        node => `${{rule.id}} (${{rule.impact}}): ${{node.target}}`)),
      passed: found.passes.map(rule => rule.id),
      ink: getComputedStyle(document.body).color,
      wide: root.scrollWidth - root.clientWidth,
    }};
  }}
}})().catch(error => {{ told.failed = String(error); }}).finally(() => {{
  const place = document.createElement("pre");
  place.id = "told-by-axe";
  place.textContent = JSON.stringify(told);
  document.body.append(place);
}});
"""


def axe_source() -> str | None:
    """The source of axe, where the package that carries it is installed."""
    found = importlib.util.find_spec("axe_core_python")
    if found is None or not found.submodule_search_locations:
        return None
    return Path(found.submodule_search_locations[0], "axe.min.js").read_text(encoding="utf-8")


def checked(page: str, folder: Path, *, width: int = 1280) -> dict[str, Any]:
    """What axe says of this page in a window of this width, light and dark.

    By scheme (in the dark only the contrast of colours is looked at): ``violations`` (rule, weight
    and element), the rules that ``passed``, the colour of the text ``ink``, and by how many pixels
    the page is too ``wide``. The report forbids scripts, so the copy that is opened has no such
    policy; and its query for dark colours is set by hand.
    """
    program, axe = chromium(), axe_source()
    assert program is not None and axe is not None
    free = re.sub(r"<meta http-equiv=\"Content-Security-Policy\"[^>]*>", "", page)
    assert free != page
    assert free.count("@media (prefers-color-scheme: dark)") == 1
    run = _RUN.format(rules=json.dumps(RULES))
    scripts = f"<script>{axe}</script><script>{run}</script>"
    place = folder / "page.html"
    place.write_text(free.replace("</body>", f"{scripts}</body>"), encoding="utf-8")
    done = subprocess.run(
        [program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
         f"--user-data-dir={folder / 'profile'}", f"--window-size={width},900",
         "--virtual-time-budget=60000", "--dump-dom", place.as_uri()],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    told = re.search(r'<pre id="told-by-axe">(.*?)</pre>', done.stdout, re.DOTALL)
    assert told is not None, f"axe said nothing: {done.stderr[-500:]}"
    found: dict[str, Any] = json.loads(html.unescape(told[1]))
    assert "failed" not in found, found
    assert found["light"]["ink"] != found["dark"]["ink"], "both schemes must have been seen"
    return found
