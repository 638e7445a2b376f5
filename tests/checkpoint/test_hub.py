"""Weights that come from the Hugging Face Hub and go there: its library against a server on this machine."""

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from helpers import random_network, refused, write_weights

import fastllie
from fastllie.checkpoint import hub, pretrained

COMMIT = "c0ffee" + 34 * "0"


class Hub(BaseHTTPRequestHandler):
    """The Hub's interface, as far as huggingface_hub asks for it: repositories in the server's memory."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def answer(self, status, content=b"", **headers):
        if not isinstance(content, bytes):
            content = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": len(content), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def missing(self, what):
        self.answer(404, {"error": what}, X_Error_Code=what, X_Error_Message=what)

    def do_GET(self):
        repositories, parts = self.server.repositories, self.path.split("?")[0].strip("/").split("/")
        self.server.asked.append(f"{self.command} {self.path}")
        if parts[:2] == ["api", "models"]:
            name, revision = "/".join(parts[2:4]), parts[5] if len(parts) > 5 else "main"
            if name not in repositories:
                return self.missing("RepoNotFound")
            if revision not in ("main", COMMIT):
                return self.missing("RevisionNotFound")
            files = [
                {"type": "file", "path": file, "size": len(content), "oid": COMMIT}
                for file, content in repositories[name].items()
            ]
            return self.answer(200, files, Content_Type="application/json")
        if len(parts) < 5 or parts[2] != "resolve":
            return self.answer(404)
        name, revision, file = "/".join(parts[:2]), parts[3], "/".join(parts[4:])
        if name not in repositories:
            return self.missing("RepoNotFound")
        if revision not in ("main", COMMIT):
            return self.missing("RevisionNotFound")
        if file not in repositories[name]:
            return self.missing("EntryNotFound")
        content = repositories[name][file]
        tag = f'"{hashlib.sha1(content).hexdigest()}"'
        return self.answer(200, content, ETag=tag, X_Repo_Commit=COMMIT)

    do_HEAD = do_GET

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = self.path.split("?")[0].strip("/").split("/")
        self.server.asked.append(f"POST {self.path}")
        if parts[:3] == ["api", "repos", "create"]:
            wanted = json.loads(body)
            name = f"{wanted['organization']}/{wanted['name']}"
            self.server.repositories.setdefault(name, {})
            return self.answer(200, {"url": f"http://{self.headers['Host']}/{name}", "id": name})
        if parts == ["api", "validate-yaml"]:
            return self.answer(200, {"errors": [], "warnings": []})
        name = "/".join(parts[2:4])
        if parts[4] == "preupload":
            files = json.loads(body)["files"]
            told = [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False} for one in files]
            return self.answer(200, {"files": told})
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                content = base64.b64decode(line["value"]["content"])
                self.server.repositories[name][line["value"]["path"]] = content
        address = f"http://{self.headers['Host']}/{name}/commit/{COMMIT}"
        return self.answer(200, {"success": True, "commitOid": COMMIT, "commitUrl": address})


@pytest.fixture
def server():
    pytest.importorskip("huggingface_hub")
    made = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    made.repositories, made.asked = {}, []
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join(10)


# in a process of its own: the library reads where the Hub is when it is imported
SCRIPT = """
import sys, torch, fastllie
from fastllie.models import SCI, ZeroDCE
image = torch.rand(3, 9, 11, generator=torch.Generator().manual_seed(0))

def told(call):
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"

by_address = fastllie.enhance(image, "zerodce", weights="hf://me/curve")
assert torch.equal(fastllie.enhance(image, "zerodce", weights="hf://me/curve@main"), by_address)
assert torch.equal(fastllie.enhance(image, "zerodce", weights="hf://me/curve/model.safetensors"), by_address)
assert torch.allclose(ZeroDCE.from_pretrained("me/curve")(image[None])[0], by_address, atol=1e-5)
assert torch.equal(fastllie.enhance(image, "zerodce", weights=sys.argv[1]), by_address)
for rest in ("none", "curve/other.safetensors", "curve@v9", "two", "empty", "curve/a.pth"):
    print(told(lambda: fastllie.load("zerodce", f"hf://me/{rest}")))
print(told(lambda: fastllie.load("sci", "hf://me/curve")))
network = fastllie.load("sci", "mild")
with torch.no_grad():
    network.enhance.in_conv[0].bias += 0.01
print(network.push_to_hub("me/tuned", message="Tuned"))
again = SCI.from_pretrained("me/tuned", revision="main")
assert again.padding == "reflect"
assert torch.equal(again(image[None]), network(image[None]))
"""


def test_there_and_back(server, tmp_path):
    own = write_weights(tmp_path / "own.safetensors", "zerodce")
    content = own.read_bytes()
    server.repositories |= {
        "me/curve": {"model.safetensors": content},
        "me/two": {"a.safetensors": content, "b.safetensors": content},
        "me/empty": {"weights.pth": b""},
    }
    (tmp_path / "script.py").write_text(SCRIPT)
    address = f"http://127.0.0.1:{server.server_address[1]}"
    home = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": "hf_of_a_test"}
    path = os.pathsep.join([str(Path(fastllie.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py"), str(own)],
        env={**os.environ, **home, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    none, other, revision, two, empty, pickled, misfit, pushed = done.stdout.splitlines()
    assert none == "FileNotFoundError: weights 'hf://me/none': no such repository, or not for you"
    assert other.endswith("no such file; there are: model.safetensors")
    assert revision == "FileNotFoundError: weights 'hf://me/curve@v9': no such revision"
    assert two.endswith("name one of the files: a.safetensors, b.safetensors")
    assert empty.endswith("no such file; there are none in safetensors")
    assert pickled.startswith("ValueError")
    assert "end in .safetensors alone" in pickled
    assert "holds weights of 'zerodce', wanted weights of 'sci'" in misfit
    assert pushed == f"{address}/me/tuned/commit/{COMMIT}"
    # one download, however often it is asked for
    assert sum(line.startswith("GET /me/curve/resolve/main/model") for line in server.asked) <= 1
    card = server.repositories["me/tuned"]["README.md"].decode()
    assert 'weights="hf://me/tuned"' in card
    assert "library_name: fastllie" in card


@pytest.mark.parametrize("method", fastllie.list_methods())
def test_a_file_makes_the_same_network_again(method, tmp_path):
    options = {"padding": "zeros"} if method in ("sci", "zerodce") else {}
    network = random_network(method, **options)
    path = tmp_path / "own.safetensors"
    path.write_bytes(pretrained.to_file(method, network))
    x = torch.rand(1, 3, 24, 32)
    again = fastllie.load(method, path)
    pairs = zip(again.state_dict().items(), network.state_dict().items(), strict=True)
    assert all(name == other and torch.equal(one, two) for (name, one), (other, two) in pairs)
    with torch.no_grad():
        # a matrix product may round by where its operands lie in memory
        torch.testing.assert_close(again(x), network(x), atol=1e-6, rtol=0)


def test_errors(monkeypatch):
    network = fastllie.load("sci")
    torch.nn.utils.parametrizations.weight_norm(network.enhance.in_conv[0])
    with refused(ValueError, "the layers of this SCI are not those of 'sci'"):
        network.push_to_hub("me/tuned")

    class Mine(fastllie.models.SCI):
        pass

    with refused(TypeError, "Mine is the network of no method; those are: ", "ZeroDCEPlusPlus"):
        Mine.from_pretrained("me/tuned")
    for wrong in ("hf://alone", "hf://", "hf://a/b@"):
        with refused(ValueError, f"weights {wrong!r}: wanted hf://owner/name[/file][@revision]"):
            fastllie.load("sci", wrong)
    with refused(ValueError, "name must be 'owner/name', got 'alone'"):
        fastllie.load("sci").push_to_hub("alone")
    with refused(ValueError, "file must end in .safetensors"):
        fastllie.load("sci").push_to_hub("me/tuned", file="model.pth")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with refused(ImportError, 'pip install "fastllie[hub]"'):
        hub.fetch("hf://me/tuned")
