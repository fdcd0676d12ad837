"""A llama-server for tests of the proof: answers what is expected, or fails as it is told. A real program with knobs.

`write` makes one. It knows the weight type from the model's name and answers with the expected log-probabilities; its
knobs say for which types it is off, dies of a signal, is killed, or answers nonsense, and whether --no-repack and
GGML_CPU_VARIANT mend that.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """#!{python} -S
import http.server, json, os, signal, socketserver, sys, time
knobs = json.loads({knobs!r})
expected = json.load(open({expected!r}))
arguments = sys.argv[1:]
if "--version" in arguments:
    print("version: 1 (stand-in)")
    sys.exit(0)
kind = os.path.basename(arguments[arguments.index("--model") + 1]).removesuffix(".gguf")
mended = knobs.get("mended_by") in arguments or os.environ.get("GGML_CPU_VARIANT") == knobs.get("good_variant", "-")
fault = None if mended else knobs.get("faults", {{}}).get(kind)
if fault == "dies at start":
    print("the last line", flush=True)
    os.kill(os.getpid(), signal.SIGILL)
if fault == "exits":
    print("error: no such thing")
    sys.exit(3)


class Handler(http.server.BaseHTTPRequestHandler):
    def address_string(self):
        return "-"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.answer({{"status": "ok"}})

    def do_POST(self):
        tokens = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["prompt"]
        step = expected[kind]["log_probabilities"][len(tokens) - 100]
        if fault == "dies":
            os.kill(os.getpid(), signal.SIGILL)
        if fault == "killed" or (fault == "killed once" and not os.path.exists(__file__ + kind)):
            open(__file__ + kind, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "nonsense":
            return self.answer({{"content": "?"}})
        if fault == "not a number":
            step = [float("nan")] * len(step)
        off = fault if isinstance(fault, float) else 0.0
        listed = [{{"id": token, "logprob": value + off * (token == 7)}} for token, value in enumerate(step)]
        self.answer({{"completion_probabilities": [{{"top_logprobs": listed[::-1]}}]}})

    def answer(self, body):
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


socketserver.UnixStreamServer(arguments[arguments.index("--host") + 1], Handler).serve_forever()
"""


def write(path: Path, **knobs: Any) -> Path:
    """Write the program to `path`; `faults` maps a weight type to what goes wrong: a number is how far it is off."""
    expected = str(ROOT / "image/engine/proof_expected.json")
    text = PROGRAM.format(python=sys.executable, knobs=json.dumps(knobs), expected=expected)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return path
