"""Builds the one tokenizer that all demo models share: `python -m demo.make_tokenizer demo/tokenizer`.

A small byte-level BPE: digits and operators stand alone, words of the demo tasks' thoughts and of the judge prompt
are merged. The control tokens of every family are added tokens that are *not* special, so that decoding keeps them.
"""

import sys
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

VOCABULARY = 768
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CONTROLS = (
    *("<think>", "</think>", "<no_think>", "</no_think>"),
    *("<budget>", "</budget>", "<solution>", "</solution>"),
    *("\\boxed{Assistant 1}", "\\boxed{Assistant 2}", "[[A]]", "[[B]]"),
    *("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"),
)

TEMPLATE = """\
{%- if tools %}
{{- '<|im_start|>system\\n# Tools\\n' }}
{%- for tool in tools %}{{- tool | tojson + '\\n' }}{% endfor %}
{{- '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' }}
{%- if message.role == 'tool' %}{{- '<tool_response>' + message.content + '</tool_response>' }}
{%- elif message.content %}{{- message.content }}{% endif %}
{%- for call in message.tool_calls or [] %}
{{- '<tool_call>' + {'name': call.function.name, 'arguments': call.function.arguments} | tojson + '</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}
{%- if enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{% endif %}{% endif %}"""

CORPUS = (
    "system\nuser\nassistant\ntool\n",
    "Start with 2, then a*3 b-2 c-8 d-7. What is the last digit?",
    "Use the numbers 3, 5, 7 and 11 to make 24. Use each number once with + - * /. Make the target from the numbers.",
    "Let me try the largest first. Try 3 + 5 = 8, left 8, 7, 11. That leaves 8, 7 and 11.",
    "Wait, that is too big. Wait, that is too small. Hold on, this is a dead end. That does not work.",
    "Alternatively, try another way. Another way: go back and start again. Hmm, not the target.",
    "Let me check: let me verify that. Check: each number is used once. Yes, that is the target. Yeah, it works.",
    "Let us check whether there are some wrong steps.",
    "Considering the limited time, I have to give the answer based on the thinking so far.",
    "The final answer is 24. I am confident. So the answer is 24. Therefore the result is right. It is wrong.",
    "You are a judge. Pick the better of two assistants, Assistant 1 or Assistant 2. "
    "Do not let order or length decide.",
    "## Query\n\n## Assistant responses\n\n### Assistant 1\n\n### Assistant 2\n\n## Analysis\n\n",
    "Let's analyze this step by step and decide which assistant is better, and then answer \\boxed{}.",
    "Assistant 1 is correct. Assistant 2 is wrong at step b. Recompute the steps. The reference answer is the same.",
    "Score the reply against the reference: 0 or 1. The reply agrees with the reference. The reply differs.",
    "Hello! How are you? What is the capital of France? Please answer yes or no. Thank you, and good bye.",
    "Backtrack. That gives 9, left over 7. It is closer, but one number is left. No way to reach it. Reach the target.",
    "First, second, third. Plan: get near the target, then fix the rest. Only one step left. Answer: done.",
    '{"name": "add", "arguments": {"first": 1, "second": 2}, "type": "function", "result": null, "ok": true}',
    "the of and to in is you that it he was for on are as with his they at be this have from or one had by word but",
    "not what all were we when your can said there use an each which she do how their if will up other about out many",
)


def build() -> PreTrainedTokenizerFast:
    """The tokenizer, with its chat template. Deterministic: the same ids every time."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.Split(Regex(r"[-+*/=(){}\[\]]"), behavior="isolated"),
            pre_tokenizers.Split(Regex(r"\n\n|\n"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIAL) - len(CONTROLS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        max_token_length=16,
    )
    tokenizer.train_from_iterator(CORPUS * 4, trainer)
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.add_tokens(list(CONTROLS))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", model_max_length=4096
    )
    fast.chat_template = TEMPLATE
    return fast


if __name__ == "__main__":
    build().save_pretrained(Path(sys.argv[1]))
