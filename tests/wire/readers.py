"""How chat clients read a reply: each one's published rule for what is thinking and what is answer, as a pure function.

Written after the named sources, cut down to what a text reply can reach. `Shown` is what the user sees in the box for
thinking and in the message below it.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

Json = Mapping[str, Any]


class Shown(NamedTuple):
    thinking: str
    answer: str


OPEN_WEBUI_TAGS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<reason>", "</reason>"),
    ("<reasoning>", "</reasoning>"),
    ("<thought>", "</thought>"),
    ("<Thought>", "</Thought>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("◁think▷", "◁/think▷"),
)


def open_webui(chunks: Iterable[Json]) -> Shown:
    """Open WebUI 0.12.4, backend/open_webui/utils/middleware.py, the handler of a streamed reply.

    The first non-empty of three keys is thinking; content is the message, in which pairs of tags are thinking too.
    """
    thinking, answer = "", ""
    for chunk in chunks:
        for choice in chunk.get("choices", ())[:1]:
            delta = choice.get("delta", {})
            thinking += delta.get("reasoning_content") or delta.get("reasoning") or delta.get("thinking") or ""
            answer += delta.get("content") or ""
    for opening, closing in OPEN_WEBUI_TAGS:
        for tagged in re.findall(f"{re.escape(opening)}(.*?)(?:{re.escape(closing)}|$)", answer, re.DOTALL):
            thinking += tagged
        answer = re.sub(f"{re.escape(opening)}.*?(?:{re.escape(closing)}|$)", "", answer, flags=re.DOTALL)
    return Shown(thinking, answer)


def open_webui_whole(reply: Json) -> Shown:
    """The same file, the handler of a reply that is not streamed."""
    message = reply["choices"][0]["message"]
    return Shown(message.get("reasoning_content") or message.get("reasoning") or "", message["content"])


def librechat(chunks: Iterable[Json]) -> Shown:
    """LibreChat: danny-avila/agents at 28eab85b, src/llm/openai/index.ts (attachLibreChatDeltaFields) and
    src/stream.ts (getChunkContent, handleReasoning).

    `reasoning` is read only where `reasoning_content` is null or missing. A chunk with both thinking and content shows
    its content. The kind of text changes to thinking with a thinking chunk without content, and back with content;
    tags in the content change it as well.
    """
    thinking, answer = "", ""
    kind, switched_by, last = "answer", "", ""
    for chunk in chunks:
        for choice in chunk.get("choices", ())[:1]:
            delta = choice["delta"]
            content = delta.get("content") or ""
            keyed = delta.get("reasoning_content")
            keyed = delta.get("reasoning") if keyed is None else keyed
            if keyed and not content:
                kind, switched_by = "thinking", "reasoning"
            else:
                if switched_by == "reasoning" and kind == "thinking" and content:
                    kind, switched_by = "answer", "content"
                elif "<think>" in content:
                    kind, switched_by = "thinking", "content"
                elif "</think>" in last:
                    kind, switched_by = "answer", "content"
                last = content
            text = content if content and keyed else (keyed or content)
            if kind == "thinking":
                thinking += text
            else:
                answer += text
    return Shown(thinking, answer)


def librechat_whole(reply: Json) -> Shown:
    """The same, src/llm/openai/index.ts (attachLibreChatMessageFields) and src/graphs/Graph.ts."""
    message = reply["choices"][0]["message"]
    keyed = message.get("reasoning_content")
    keyed = message.get("reasoning") if keyed is None else keyed
    return Shown(keyed or "", message["content"])


def lobechat(chunks: Iterable[Json]) -> Shown:
    """LobeChat: lobehub/lobe-chat, packages/model-runtime/src/core/streams/openai/openai.ts (transformOpenAIStream).

    `reasoning_content` counts as soon as the key is there, even where it is null; then `reasoning`. A chunk is either
    thinking or text; one that carries a finish reason is text where it has content, else an end.
    """
    thinking, answer, inside = "", "", False
    for chunk in chunks:
        if not chunk.get("choices"):
            continue
        choice = chunk["choices"][0]
        delta = choice.get("delta") or {}
        content = delta.get("content")
        if choice.get("finish_reason"):
            answer += content if isinstance(content, str) else ""
            continue
        reasoning = delta["reasoning_content"] if "reasoning_content" in delta else delta.get("reasoning")
        if isinstance(content, str) and isinstance(reasoning, str):
            if content == "" and reasoning == "":
                content = None
            elif reasoning == "":
                reasoning = None
        if isinstance(reasoning, str):
            thinking += reasoning
        elif isinstance(content, str):
            inside = "<think>" in content or (inside and "</think>" not in content)
            text = re.sub("</?think>", "", content)
            if inside:
                thinking += text
            else:
                answer += text
    return Shown(thinking, answer)


def big_agi(chunks: Iterable[Json]) -> Shown:
    """big-AGI at 52adc48c6, src/modules/aix/server/dispatch/chatGenerate/parsers/openai.parser.ts.

    One of `reasoning_content` (if a string), `reasoning_details`, `reasoning` is thinking; content is text beside it.
    """
    thinking, answer = "", ""
    for chunk in chunks:
        for choice in chunk["choices"]:
            if choice["index"] != 0:
                raise ValueError("expected completion index 0")
            delta = choice["delta"]
            content = delta.get("content")
            keyed = delta.get("reasoning_content")
            if isinstance(keyed, str) and (keyed or not content):
                thinking += keyed
            elif isinstance(delta.get("reasoning_details"), list):
                thinking += "".join(detail.get("text", "") for detail in delta["reasoning_details"])
            elif isinstance(delta.get("reasoning"), str):
                thinking += delta["reasoning"]
            answer += content if isinstance(content, str) else ""
    return Shown(thinking, answer)


def litellm(chunks: Iterable[Json]) -> Shown:
    """LiteLLM 1.106.2, litellm/llms/openai/chat/gpt_transformation.py (_map_reasoning_to_reasoning_content).

    Where `reasoning` is there it takes the place of `reasoning_content`, whatever it holds.
    """
    thinking, answer = "", ""
    for chunk in chunks:
        for choice in chunk["choices"][:1]:
            delta = dict(choice["delta"])
            if "reasoning" in delta:
                delta["reasoning_content"] = delta.pop("reasoning")
            thinking += delta.get("reasoning_content") or ""
            answer += delta.get("content") or ""
    return Shown(thinking, answer)


def litellm_whole(reply: Json) -> Shown:
    """The same release, litellm_core_utils/prompt_templates/common_utils.py (extract_reasoning_content)."""
    message = reply["choices"][0]["message"]
    keyed = message["reasoning_content"] if "reasoning_content" in message else message.get("reasoning")
    return Shown(keyed or "", message["content"])


READERS = (open_webui, librechat, lobechat, big_agi, litellm)
WHOLE_READERS = (open_webui_whole, librechat_whole, litellm_whole)
