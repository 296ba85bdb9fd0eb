"""LangChain on chat, responses and messages: an agent with a tool, a stream, a structured result, two turns."""

import sys

from langchain_anthropic import ChatAnthropic
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.prebuilt import create_react_agent
from pydantic import BaseModel


class Sum(BaseModel):
    """A sum."""

    total: int


@tool
def add(a: int) -> int:
    """Adds."""
    return a + 1


def main(url: str) -> None:
    openai = {"model": "q", "base_url": f"{url}/v1", "api_key": "any", "max_retries": 0}
    models = {
        "chat": ChatOpenAI(**openai),
        "responses": ChatOpenAI(**openai, use_responses_api=True),
        "messages": ChatAnthropic(model="q", base_url=url, api_key="any", max_tokens=500, max_retries=0),
    }
    for name, model in models.items():
        agent = create_react_agent(model, [add])
        first = agent.invoke({"messages": [("user", 'CALL add {"a": 1}\nSAY four')]})["messages"]
        assert first[-1].text == "four", first
        second = agent.invoke({"messages": [*first, ("user", "SAY five")]})["messages"]
        assert second[-1].text == "five", second
        assert "".join(piece.text for piece in model.stream("SAY six")) == "six"
        form, said = ("json_schema", "JSON") if name != "messages" else ("function_calling", "CALL Sum")
        asked = model.with_structured_output(Sum, method=form).invoke(f'{said} {{"total": 4}}')
        assert asked.total == 4, asked
        kinds = {part.get("type") for message in first if isinstance(message.content, list) for part in message.content}
        print(name, "thinking:", bool(kinds & {"thinking", "reasoning"}))
    print("ok")


if __name__ == "__main__":
    main(sys.argv[1])
