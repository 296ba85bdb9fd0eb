"""pydantic-ai: agents with a tool and a structured result on chat, responses and messages, two turns each."""

import sys

from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider


class Sum(BaseModel):
    total: int


def main(url: str) -> None:
    openai = OpenAIProvider(base_url=f"{url}/v1", api_key="any")
    models = {
        "chat": OpenAIChatModel("q", provider=openai),
        "responses": OpenAIResponsesModel("q", provider=openai),
        "messages": AnthropicModel("q", provider=AnthropicProvider(base_url=url, api_key="any")),
    }
    for name, model in models.items():
        agent = Agent(model, instructions="be short")

        @agent.tool_plain
        def add(a: int) -> int:
            """Adds."""
            return a + 1

        first = agent.run_sync('CALL add {"a": 1}\nSAY four')
        assert first.output == "four", first
        second = agent.run_sync("SAY five", message_history=first.all_messages())
        assert second.output == "five", second
        if name != "messages":
            asked = Agent(model, output_type=NativeOutput(Sum)).run_sync('JSON {"total": 4}')
            assert asked.output.total == 4
        print(name, "thinking:", any(part.part_kind == "thinking" for m in first.all_messages() for part in m.parts))
    print("ok")


if __name__ == "__main__":
    main(sys.argv[1])
