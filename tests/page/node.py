"""Runs the page's JavaScript modules outside of a browser, in Node."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from course.core.stages import ROOT

SITE = ROOT / "course" / "page" / "site"
NEEDS_NODE = pytest.mark.skipif(
    shutil.which("node") is None, reason="node is not installed: the page's JavaScript is not run"
)
BOTTOM = (
    "\nprocess.stdout.write(JSON.stringify(await answer(given), (_, v) => ArrayBuffer.isView(v) ? Array.from(v) : v));"
)


def node(tmp_path: Path, script: str, given: Any = None, site: Path = SITE) -> Any:
    """What `answer(given)` of a script returns, as JSON. "site/" in an import is the folder of the page's modules."""
    module = tmp_path / "script.mjs"
    folder = tmp_path / "site"
    if not folder.exists():
        shutil.copytree(site, folder)
        (folder / "package.json").write_text('{"type": "module"}', encoding="utf-8")
    text = script.replace('"site/', '"./site/') + f"\nconst given = {json.dumps(given)};" + BOTTOM
    module.write_text(text, encoding="utf-8")
    done = subprocess.run(["node", module], capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)
