"""LlamaIndex, OpenAI-like: chat, a stream, an agent with a tool over two turns, a structured result."""

import asyncio
import sys

from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.workflow import Context
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel


class Sum(BaseModel):
    """A sum."""

    total: int


def add(a: int) -> int:
    """Adds."""
    return a + 1


async def main(url: str) -> None:
    kinds = {"is_chat_model": True, "is_function_calling_model": True, "context_window": 8192}
    llm = OpenAILike(model="q", api_base=f"{url}/v1", api_key="any", max_retries=0, **kinds)
    first = llm.chat([ChatMessage(role="user", content="SAY three")])
    assert first.message.content == "three", first
    history = [ChatMessage(role="user", content="x"), first.message, ChatMessage(role="user", content="SAY four")]
    assert "".join(piece.delta or "" for piece in llm.stream_chat(history)) == "four"
    agent = FunctionAgent(tools=[add], llm=llm, streaming=True)
    context = Context(agent)
    assert str(await agent.run('CALL add {"a": 1}\nSAY five', ctx=context)) == "five"
    assert str(await agent.run("SAY six", ctx=context)) == "six"
    asked = llm.as_structured_llm(Sum).complete('CALL Sum {"total": 4}').raw
    assert asked.total == 4, asked
    print("thinking:", any(block.block_type == "thinking" for block in first.message.blocks))
    print("ok")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
