"""A process that speaks vLLM's completion protocol without a model: tokens are a hash of prompt, seed and index.

    python completion_server.py PORT [LATENCY_S]

It is here to be killed: it starts in a tenth of a second, and answers the same whichever server is asked.
"""

import hashlib
import json
import struct
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

END, ANSWER, DIGIT, WORD = 257, 259, 261, 271  # as lapha.engines.scripted


def continuation(prompt, seed, index):
    noise = hashlib.blake2b(struct.pack(f"<{len(prompt)}q", *prompt) + struct.pack("<qq", seed, index)).digest()
    tokens = [WORD + byte % 20 for byte in noise[: 3 + noise[-1] % 4]]
    if noise[-2] < 64:
        tokens += [ANSWER, DIGIT + noise[-3] % 10]
    return [*tokens, END], [-(byte + 1) / 128 for byte in noise[8 : 9 + len(tokens)]]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    latency = 0.0

    def do_GET(self):
        self.answer({})

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        time.sleep(self.latency)
        choices = []
        for index in range(asked["n"]):
            tokens, logprobs = continuation(asked["prompt"], asked["seed"], index)
            choices.append(
                {"index": index, "token_ids": tokens, "logprobs": {"token_logprobs": logprobs}, "finish_reason": "stop"}
            )
        self.answer({"choices": choices[::-1]})  # order is the client's to restore

    def answer(self, body):
        text = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *arguments):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 256


if __name__ == "__main__":
    Handler.latency = float(sys.argv[2]) if len(sys.argv) > 2 else 0.0
    Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
