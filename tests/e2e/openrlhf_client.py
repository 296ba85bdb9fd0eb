"""Run in an environment that has OpenRLHF and nothing of ours: its rollout asks for rewards at the URLs in argv[2:],
over the tokenizer in argv[1]; prints what it put beside each reply."""

import asyncio
import json
import sys
from types import SimpleNamespace

from openrlhf.utils.agent import SingleTurnAgentExecutor
from transformers import AutoTokenizer

TOKENIZER = AutoTokenizer.from_pretrained(sys.argv[1])
PROMPT = TOKENIZER.apply_chat_template(
    [{"role": "user", "content": "Which number is larger, 3 or 8?"}], tokenize=False, add_generation_prompt=True
)


class Engine:
    """Stands where the trainer's vLLM does: says one given reply."""

    def __init__(self, reply):
        self.reply = reply

    async def generate(self, prompt_ids, sampling_params, multi_modal_data=None):
        ids = TOKENIZER(self.reply, add_special_tokens=False)["input_ids"] + [TOKENIZER.eos_token_id]
        return SimpleNamespace(
            outputs=[SimpleNamespace(token_ids=ids, text=self.reply, finish_reason="stop", logprobs=None)]
        )


async def rollout(executor, reply, label):
    sampling = SimpleNamespace(max_tokens=64, logprobs=None)
    said = await executor.execute(PROMPT, label, sampling, 512, TOKENIZER, Engine(reply))
    return {name: said[name] for name in ("reward", "scores", "extra_logs")}


async def main():
    executor = SingleTurnAgentExecutor(sys.argv[2:])
    replies = [("8", "8"), ("3", "8"), ("<no_think>8</no_think>", "8")]
    return [await rollout(executor, reply, label) for reply, label in replies]


print(json.dumps(asyncio.run(main())))
