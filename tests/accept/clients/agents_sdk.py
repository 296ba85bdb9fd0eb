"""OpenAI's Agents SDK on chat and responses: a tool, a stream, a structured result, two turns."""

import asyncio
import sys

from agents import (
    Agent,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from pydantic import BaseModel


class Sum(BaseModel):
    total: int


@function_tool
def add(a: int) -> int:
    """Adds."""
    return a + 1


async def main(url: str) -> None:
    set_tracing_disabled(True)
    client = AsyncOpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0)
    for kind in (OpenAIChatCompletionsModel, OpenAIResponsesModel):
        model = kind("q", client)
        agent = Agent(name="a", instructions="be short", model=model, tools=[add])
        first = await Runner.run(agent, 'CALL add {"a": 1}\nSAY four')
        assert first.final_output == "four", first
        streamed = Runner.run_streamed(agent, [*first.to_input_list(), {"role": "user", "content": "SAY five"}])
        async for _ in streamed.stream_events():
            pass
        assert streamed.final_output == "five", streamed
        asked = await Runner.run(Agent(name="s", model=model, output_type=Sum), 'JSON {"total": 4}')
        assert asked.final_output.total == 4, asked
        print(kind.__name__, "thinking:", any(item.type == "reasoning_item" for item in first.new_items))
    print("ok")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
