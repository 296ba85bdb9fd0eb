"""Two models that go on wherever a prompt ends, and what they were asked: the scripts of the speculative tests."""

import random
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from models.engines.base import Prompt, Sampling
from models.engines.scripted import Line
from models.text.tokenizer import HubTokenizer

MARK = "assistant\n"  # of the demo template: the reply stands behind it
CONTROLS = ("<think>", "</think>", "<no_think>", "</no_think>")
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def said(tokenizer: HubTokenizer, token_ids: Sequence[int]) -> str:
    """The reply that a prompt goes on with, tags included."""
    return tokenizer.decode(token_ids, skip_special_tokens=False).rpartition(MARK)[2]


class Model:
    """A script that writes what `goes_on` makes of the reply so far, and remembers what it was asked."""

    def __init__(self, tokenizer: HubTokenizer, goes_on: Callable[[str], str]) -> None:
        self.tokenizer = tokenizer
        self.begin(goes_on)

    def begin(self, goes_on: Callable[[str], str]) -> None:
        self.goes_on = goes_on
        self.asked: list[str] = []
        self.prompts: list[Prompt] = []
        self.sampling: list[Sampling] = []

    def __call__(self, prompt: Prompt, sampling: Sampling) -> Line:
        reply = said(self.tokenizer, prompt.token_ids)
        self.asked.append(reply)
        self.prompts.append(prompt)
        self.sampling.append(sampling)
        return self.goes_on(reply)


def recites(text: str) -> Callable[[str], str]:
    """Goes on behind as many characters of `text` as were said."""
    return lambda reply: text[len(reply.removeprefix("<think>")) :]


def rambles(seed: int | str, wordy: Sequence[str], cues: float, paragraphs: int) -> Callable[[str], str]:
    """A thought of random paragraphs, the same for the same beginning; then the answer."""

    def goes_on(reply: str) -> str:
        if "</think>" in reply:
            return "the answer."
        rng = random.Random(f"{seed} {reply}")
        left = max(0, paragraphs - reply.count("\n\n"))
        lines = []
        for _ in range(left):
            sentence = " ".join(rng.choices(wordy, k=rng.randint(2, 9)))
            opening = rng.choice(OPENINGS) if rng.random() < cues else ""
            lines.append(f"{opening}{sentence}. {' '.join(rng.choices(wordy, k=rng.randint(0, 12)))}")
        opened = "" if "<think>" in reply else "<think>"
        return f"{opened}{rng.choice(wordy)} " + "\n\n".join(lines) + "</think>the answer."

    return goes_on


OPENINGS = (
    "Wait, ",
    "Alternatively, ",
    "Hold on, ",
    "Yes, ",
    "Let me check: ",
    "The final answer is ",
    "Another 2*3=6 ",
)
WORDS = ("try", "2*3=6,", "left", "9", "naïve", "日本語", "😀", "checkmate", "12/4", "größer", "…", "so", "then\n")


def other_tokenizer(kind: str) -> HubTokenizer:
    """A tokenizer with the demo's template but other ids: `bytes` has no merges at all, `tagless` no tokens for tags
    either, `merged` is `tagless` but for one merge, `lower` has no capitals, `words` writes a blank before every text
    it begins, as sentencepiece does."""
    if kind != "words":
        alphabet, merges = sorted(pre_tokenizers.ByteLevel.alphabet()), [("s", "t")] if kind == "merged" else []
        pieces = [*alphabet, *map("".join, merges)]
        tokenizer = Tokenizer(models.BPE({piece: number for number, piece in enumerate(pieces)}, merges))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        if kind == "lower":
            tokenizer.normalizer = normalizers.Lowercase()
    else:
        known = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *map(chr, range(33, 127)), "\n"]
        tokenizer = Tokenizer(
            models.BPE({piece: number for number, piece in enumerate(known)}, [], unk_token="<unk>", byte_fallback=True)
        )
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([*SPECIAL])
    if kind not in ("tagless", "merged"):
        tokenizer.add_tokens([*CONTROLS])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.chat_template = Path("demo/tokenizer/chat_template.jinja").read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        fast.save_pretrained(folder)
        return HubTokenizer(folder)
