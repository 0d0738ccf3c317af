"""Prompt banks, and an LLM server that misbehaves on purpose."""

import contextlib
import gzip
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from zsadlib.datasets import miniad
from zsadlib.prompts import banks, llm
from zsadlib.provenance import sha256

MVTEC = (
    "bottle", "cable", "capsule", "carpet", "grid", "hazelnut", "leather", "metal nut", "pill", "screw", "tile",
    "toothbrush", "transistor", "wood", "zipper",
)  # fmt: skip
VISA = (
    "candle", "capsules", "cashew", "chewinggum", "fryum", "macaroni1", "macaroni2", "pcb1", "pcb2", "pcb3", "pcb4",
    "pipe fryum",
)  # fmt: skip
SCORED = (*miniad.split_names("development"), *miniad.split_names("seen_test"), "textile", "magnetic tile")


def test_committed_banks_are_whole_and_match_their_index():
    for name in banks.bank_names()[1:]:
        folder = banks.RECORDED / name
        index = json.loads((folder / "index.json").read_text())
        assert set(index) == {p.name for p in folder.glob("*.json")} - {"index.json"}
        for file, digest in index.items():
            assert sha256(folder / file) == digest, f"{name}/{file} changed without its index"
            bank = banks.Bank.model_validate_json((folder / file).read_text())
            assert bank.llm == name and bank.provenance and bank.licence and not bank.fallback
            for side in (bank.answers.normal, bank.answers.abnormal):
                assert banks.clean(side) == (side, {})


def test_every_category_that_is_scored_has_a_bank_of_the_small_llm():
    for category in SCORED:
        assert len(banks.load_bank("gemma-3-270m", category).answers.abnormal) >= 8


def test_the_strong_bank_covers_every_data_set():
    for category in {*SCORED, *miniad.split_names("training"), *MVTEC, *VISA}:
        answers = banks.load_bank("strong", category).answers
        assert len(answers.normal) >= 20 and len(answers.abnormal) >= 20
        words = " ".join(answers.normal + answers.abnormal).lower().split()
        assert not {"smell", "smells", "odor", "odour", "sounds", "rattle", "weight", "heavy", "noise"} & set(words)


def test_no_key_and_no_address_enters_a_bank():
    for path in banks.RECORDED.rglob("*.json"):
        text = path.read_text().lower()
        assert "sk-" not in text.replace("disk-", "").replace("task-", "") and "127.0.0.1" not in text
        assert "http://" not in text and "api_key" not in text


def test_a_miss_names_the_command_that_records_it():
    with pytest.raises(ValueError, match='zsad prompts record --llm strong --category "teapot"'):
        banks.load_bank("strong", "teapot")
    for name in ("../secret", "a/b", "", "x" * 99):
        with pytest.raises(ValueError, match="cannot name a prompt bank"):
            banks.load_bank("strong", name)


def test_cleaning_drops_and_counts():
    dirty = [
        "aa {bb} <script>x</script>",
        "dup here",
        "Dup  here",
        "",
        "42",
        "y" * 200,
        "bell\x07 \u202eright",
        "ab " + "a " * 78,
        *[f"no {i}" for i in range(80)],
    ]
    kept, dropped = banks.clean(dirty)
    assert kept[0] == "aa bb x" and len(kept) == banks.MAX_PROMPTS
    assert dropped == {"duplicate": 1, "empty": 2, "too long": 1, "too many tokens": 1, "too many": 19}
    assert not set("{}<>\x07\u202e") & set("".join(kept))


def test_whoever_wrote_a_bank_only_plain_text_comes_out_of_it(tmp_path):
    said = {"normal": ["clean \u202ebolt\x1b[31m", "$\\frac$ {x}"], "abnormal": ["bent\u200b bolt <b>now</b>"]}
    bank = {"llm": "mine", "category": "bolt", "request": {}, "answers": said}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "bolt.json").write_text(json.dumps(bank))
    answers = banks.load_bank("mine", "bolt", tmp_path).answers
    assert answers.normal == ["clean bolt [31m", "$\\frac$ x"] and answers.abnormal == ["bent bolt now"]


def test_the_recorded_banks_say_what_their_files_say():
    """Cleaning on loading changes no sentence of the study."""
    for path in banks.RECORDED.glob("*/*.json"):
        if path.name != "index.json":
            stored = json.loads(path.read_text(encoding="utf-8"))
            assert (
                banks.load_bank(stored["llm"], stored["category"], banks.RECORDED).answers.model_dump()
                == stored["answers"]
            )


def test_a_missing_key_is_said_with_what_to_do(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ValueError, match="set OPENAI_API_KEY"):
        llm.connect()


# ------------------------------------------------------------------------- a server that misbehaves on purpose

GOOD = json.dumps({"normal": ["clean screw", "straight screw"], "abnormal": ["bent screw", "screw with rust"]})


def chat(content, **more):
    message = {"role": "assistant", "content": content} | more
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
    }


class Misbehaving(BaseHTTPRequestHandler):
    """Answers the i-th request with the i-th entry of ``script``; the last one repeats."""

    script, seen, encodings, sent = [], [], [], 0

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        step = type(self).script[min(len(type(self).seen), len(type(self).script) - 1)]
        type(self).seen.append(body)
        type(self).encodings.append(self.headers.get("Accept-Encoding"))
        step(self)

    def log_message(self, *args):
        pass


def reply(payload, status=200, claim=None, headers=()):
    """Send ``payload``; ``claim`` announces another length (a truncated answer)."""

    def send(handler):
        data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(claim or len(data)))
        for name, value in headers:
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(data)
        handler.wfile.flush()
        if claim:
            handler.connection.close()

    return send


def endless(length=None, part=b"x" * (1 << 16)):
    """Send without end; ``length`` is what is announced, if anything is."""

    def send(handler):
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        if length:
            handler.send_header("Content-Length", str(length))
        handler.end_headers()
        with contextlib.suppress(OSError):  # the client hangs up
            while type(handler).sent < 2e8:
                type(handler).sent += handler.wfile.write(part)

    return send


def hang(handler):
    time.sleep(1.2)
    handler.connection.close()


def error(status):
    return reply({"error": {"message": "no"}}, status, headers=[("Retry-After", "0")])


@pytest.fixture
def server():
    handler = type("Handler", (Misbehaving,), {"script": [], "seen": [], "encodings": []})
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    client = llm.connect(base_url=f"http://127.0.0.1:{http.server_port}/v1", api_key="k", timeout=0.5, max_retries=1)
    yield handler, client
    http.shutdown()
    http.server_close()


# name -> (script, is the bank a fall-back?, a reason that must be counted)
REPLIES = {
    "good": ([reply(chat(GOOD))], False, None),
    "fenced": ([reply(chat(f"Sure!\n```json\n{GOOD}\n```"))], False, None),
    "429 then good": ([error(429), reply(chat(GOOD))], False, None),
    "500 then good": ([error(500), reply(chat(GOOD))], False, None),
    "429 for ever": ([error(429)], True, "RateLimitError"),
    "500 for ever": ([error(500)], True, "InternalServerError"),
    "401": ([error(401)], True, "AuthenticationError"),
    "404": ([error(404)], True, "NotFoundError"),
    "time-out": ([hang], True, "APITimeoutError"),
    "cut in the middle": ([reply(json.dumps(chat(GOOD)).encode()[:60], claim=5000)], True, "APIConnectionError"),
    "schema refused": ([error(400), error(400), reply(chat(GOOD))], False, "refused format: BadRequestError"),
    "malformed then repaired": ([reply(chat('{"normal": ["a b"')), reply(chat(GOOD))], False, "unusable reply"),
    "malformed for ever": ([reply(chat("{'normal': oops}"))], True, "unusable reply"),
    "prose": ([reply(chat("I cannot see a screw."))], True, "unusable reply"),
    "wrong types": ([reply(chat('{"normal": "clean", "abnormal": [1, {}]}'))], True, "unusable reply"),
    "empty lists": ([reply(chat('{"normal": [], "abnormal": []}'))], True, "unusable reply"),
    "only junk": ([reply(chat('{"normal": ["", "{}", "1"], "abnormal": ["<b></b>", "  "]}'))], True, "empty"),
    "null content": ([reply(chat(None))], True, "empty reply"),
    "refusal": ([reply(chat("", refusal="no"))], True, "refusal"),
    "no choices": ([reply(chat(None) | {"choices": []})], True, "reply without"),
    "not JSON at all": ([reply(b"<html>busy</html>")], True, ""),
    "a JSON list": ([reply([1, 2])], True, ""),
    "choices is a dict": ([reply(chat(None) | {"choices": {"a": 1}})], True, "reply without"),
    "choices is a number": ([reply(chat(None) | {"choices": 7})], True, "reply without"),
    "message is a string": ([reply(chat(None) | {"choices": [{"index": 0, "message": "hello"}]})], True, "empty reply"),
    "odd token counts": ([reply(chat(GOOD) | {"usage": {"prompt_tokens": "9", "completion_tokens": 1.5}})], False, None),
    "lone surrogates": ([reply(chat('{"normal": ["\\ud800", ""], "abnormal": ["\\udfff"]}'))], True, "empty"),
    "huge": ([reply(chat("x" * 3_000_000))], True, "unusable reply"),
    "without end": ([endless()], True, "reply of more than 8 MB"),
    "longer than any memory": ([endless(10**12)], True, "reply of more than 8 MB"),
    "compressed": (
        [reply(gzip.compress(json.dumps(chat(GOOD)).encode()), headers=[("Content-Encoding", "gzip")])], True, "encoded reply",
    ),
    "deeply nested": ([reply(chat('{"normal":' + "[" * 9000 + "]" * 9000 + "}"))], True, "unusable reply"),
}  # fmt: skip


@pytest.mark.parametrize("name", REPLIES)
def test_bad_replies_neither_crash_nor_count_as_answers(server, name):
    handler, client = server
    handler.script, fallback, reason = REPLIES[name]
    bank = llm.generate("some-llm", "screw", client, n=2)
    static = banks.load_bank("static", "screw").answers
    if fallback:
        assert bank.fallback == ["normal", "abnormal"] and bank.answers == static
        assert any(key.startswith(reason) for key in bank.dropped), bank.dropped
    else:
        assert bank.fallback == [] and bank.answers.abnormal == ["bent screw", "screw with rust"]
        assert reason is None or any(key.startswith(reason) for key in bank.dropped)
    assert len(handler.seen) <= 2 * 3 * (1 + llm.REPAIRS) and handler.sent < 1e8
    assert set(handler.encodings) == {"identity"}
    assert banks.Bank.model_validate(bank.model_dump()) == bank


def test_one_bad_side_falls_back_alone_and_injected_markup_is_gone(server):
    handler, client = server
    handler.script = [
        reply(chat(json.dumps({"normal": ["<script>alert(1)</script>clean {0} screw"], "abnormal": [""]})))
    ]
    bank = llm.generate("some-llm", "screw", client, n=1)
    assert bank.fallback == ["abnormal"] and bank.answers.normal == ["alert(1) clean 0 screw"]


def test_base_models_are_asked_through_completions(server):
    handler, client = server

    def text(value, reason="stop"):
        choice = {"index": 0, "text": value, "finish_reason": reason}
        return reply({"id": "1", "object": "text_completion", "created": 0, "model": "base", "choices": [choice]})

    handler.script = [
        text(" a straight shank"),
        text(" an endless", "length"),
        text(" rust"),
        error(500),
        text(" a dent"),
    ]
    bank = llm.generate("base", "screw", client, api="completion", n=2, seed=5)
    assert bank.answers.normal == ["screw with a straight shank"] and bank.answers.abnormal[0] == "screw with rust"
    assert bank.dropped["cut short"] == 1 and bank.server_model == "base" and bank.seeds == [5, 6, 1005, 1006]
    bodies = [b["prompt"] for b in handler.seen]
    assert all(b.endswith("screw: screw with") for b in bodies) and len(set(bodies[:2])) == 2


def test_modes(server, tmp_path):
    handler, client = server
    with pytest.raises(ValueError, match="zsad prompts record"):
        llm.get_bank("m", "screw", "replay", tmp_path)
    handler.script = [reply(chat(GOOD))]
    live = llm.get_bank("m", "screw", "live", tmp_path, client=client)
    assert live.answers.abnormal and list(tmp_path.iterdir()) == []
    recorded = llm.get_bank("m", "screw", "record", tmp_path, client=client)
    assert llm.get_bank("m", "screw", "replay", tmp_path) == recorded == live
    handler.script = [error(500)]
    assert llm.get_bank("m", "screw", "record", tmp_path, client=client).fallback == ["normal", "abnormal"]
    handler.script = [reply(chat('{"normal": ["clean screw"], "abnormal": [""]}'))]
    assert llm.get_bank("m", "screw", "record", tmp_path, client=client).fallback == ["abnormal"]
    assert banks.load_bank("m", "screw", tmp_path) == recorded  # a failing server replaces nothing


def test_wrong_calls_are_refused(server):
    _, client = server
    with pytest.raises(ValueError, match="choose 'chat' or 'completion'"):
        llm.generate("x", "screw", client, api="telepathy")
    with pytest.raises(ValueError, match="choose 1 to 64"):
        llm.generate("x", "screw", client, n=0)
    with pytest.raises(ValueError, match="unknown mode"):
        llm.get_bank("strong", "screw", "guess")


def test_the_local_llm_repeats_its_recorded_answers(tmp_path):
    pytest.importorskip("xllamacpp", reason="needs the extra 'llm'")
    recorded = banks.load_bank("gemma-3-270m", "screw")
    again = llm.record("gemma-3-270m", "screw", tmp_path, n=3, seed=recorded.request["seed"])
    raw = recorded.answers.normal[:2] + recorded.answers.abnormal[:2]
    assert set(raw) <= set(again.answers.normal + again.answers.abnormal)
    assert banks.load_bank("gemma-3-270m", "screw", tmp_path) == again
