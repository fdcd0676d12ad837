"""The Responses API as its clients read it: what llama-server leaves out of responses and their events is added.

It sends no `output_index`, `sequence_number` or `content_index`, no lists in `response.created`, nothing of what the
request asked for, no end of a text that arrives with the last token, and calls an answer completed that the token limit
has cut.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_ECHOED: dict[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "reasoning": {"effort": None, "summary": None},
    "temperature": None,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": None,
    "truncation": "disabled",
    "user": None,
}
"""What a response repeats of its request, each with its default."""
_LONG = ("instructions", "tools", "metadata", "text")
_LIMITS = ("max_output_tokens", "max_tokens", "max_completion_tokens", "n_predict")
_DELTAS = {
    "response.output_text.delta",
    "response.reasoning_text.delta",
    "response.function_call_arguments.delta",
}

Event = dict[str, Any]


class ResponsesTranslation:
    """Translates the answer to one request. `created_at`: Unix time; `context`: of one request, 0 = unknown."""

    def __init__(
        self, fields: Mapping[str, Any], *, model: str, request_id: str, created_at: int, context: int
    ) -> None:
        self._echo = {name: default if fields.get(name) is None else fields[name] for name, default in _ECHOED.items()}
        limits = [limit for name in _LIMITS if (limit := fields.get(name, -1)) >= 0]
        self._limit = min(limits, default=0)
        self._context = context
        self._id = f"resp_{request_id}"
        self._model = model
        self._created_at = created_at
        self._started = False
        self._sequence = 0
        self._indexes: dict[str, int] = {}  # by item
        self._sent: dict[str, int] = {}  # characters of each item's text or arguments

    def body(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Return a complete response."""
        if answer.get("object") != "response":
            return answer
        self._id = answer["id"]
        return self._complete(answer)

    def events(self, data: Event) -> list[Event]:
        """Return the events that stand for the next one of the engine's."""
        kind = data.get("type")
        if not isinstance(kind, str) or not kind.startswith("response."):
            return [data]
        events: list[Event] = []
        if not self._started:
            self._start(data, events)
            if kind == "response.created":
                return self._numbered(events)
        self._translate(kind, data, events)
        return self._numbered(events)

    def _start(self, data: Event, events: list[Event]) -> None:
        """Begin the stream. The engine does not, if its first token is not a complete character."""
        self._started = True
        if data["type"] == "response.created":
            self._id = data["response"].get("id", self._id)
            events.append(data | {"response": self._in_progress()})
            return
        events.append({"type": "response.created", "response": self._in_progress()})
        if data["type"] != "response.in_progress":
            events.append({"type": "response.in_progress", "response": self._in_progress()})

    def _translate(self, kind: str, data: Event, events: list[Event]) -> None:
        if kind == "response.in_progress":
            response = self._in_progress()
            if "prompt_progress" in data:  # there are many of these, and the request may be long
                response |= {name: _ECHOED[name] for name in _LONG}
            events.append(data | {"response": response})
        elif kind == "response.output_item.added":
            self._add_item(data["item"], events)
        elif kind in _DELTAS:
            item = data["item_id"]
            self._sent[item] = self._sent.get(item, 0) + len(data["delta"])
            events.append(self._placed(data))
        elif kind == "response.output_item.done":
            self._end_item(data["item"], events)
        elif kind == "response.completed":
            response = self._complete(data["response"])
            events.append(data | {"type": f"response.{response['status']}", "response": response})
        else:
            if kind == "response.output_text.done":
                self._send_rest(data["item_id"], data["text"], kind.replace("done", "delta"), events)
            events.append(self._placed(data))

    def _add_item(self, item: Event, events: list[Event]) -> None:
        index = self._indexes.setdefault(item["id"], len(self._indexes))
        events.append({"type": "response.output_item.added", "output_index": index, "item": item})

    def _placed(self, data: Event) -> Event:
        """Return the event of a part of an item with what says where it belongs."""
        kind = data["type"]
        data["output_index"] = self._indexes.setdefault(data["item_id"], len(self._indexes))
        if kind.startswith("response.output_text."):
            data.setdefault("logprobs", [])
        if not kind.startswith("response.function_call_arguments."):
            data["content_index"] = 0
        if "part" in data:
            data["part"] = {"annotations": [], "logprobs": [], **data["part"]}
        return data

    def _send_rest(self, item: str, text: str, kind: str, events: list[Event]) -> None:
        """Send what the engine left out of its deltas, and of the beginning of an item that came with the end."""
        if item not in self._indexes and kind == "response.output_text.delta":
            message = {"id": item, "type": "message", "role": "assistant", "status": "in_progress", "content": []}
            self._add_item(message, events)
            part = {"type": "output_text", "text": ""}
            events.append(self._placed({"type": "response.content_part.added", "item_id": item, "part": part}))
        rest = text[self._sent.get(item, 0) :]
        if rest:
            self._sent[item] = len(text)
            events.append(self._placed({"type": kind, "item_id": item, "delta": rest}))

    def _end_item(self, item: Event, events: list[Event]) -> None:
        """End an item; reasoning and arguments have an end of their own before it, which the engine leaves out."""
        identity, kind = item["id"], item["type"]
        item.setdefault("status", "completed")
        if kind in ("reasoning", "function_call") and identity not in self._indexes:
            empty: Event = {"content": []} if kind == "reasoning" else {"arguments": ""}
            self._add_item(item | {"status": "in_progress"} | empty, events)
        if kind == "reasoning":
            text = "".join(part["text"] for part in item["content"])
            self._send_rest(identity, text, "response.reasoning_text.delta", events)
            events.append(self._placed({"type": "response.reasoning_text.done", "item_id": identity, "text": text}))
        elif kind == "function_call":
            arguments, name = item["arguments"], "response.function_call_arguments."
            self._send_rest(identity, arguments, f"{name}delta", events)
            end = {"type": f"{name}done", "item_id": identity, "name": item["name"], "arguments": arguments}
            events.append(self._placed(end))
        index = self._indexes.setdefault(identity, len(self._indexes))
        events.append({"type": "response.output_item.done", "output_index": index, "item": item})

    def _numbered(self, events: list[Event]) -> list[Event]:
        for event in events:
            event["sequence_number"] = self._sequence
            self._sequence += 1
        return events

    def _in_progress(self) -> Event:
        return self._common() | {"status": "in_progress", "output": [], "usage": None}

    def _common(self) -> Event:
        response = {"id": self._id, "object": "response", "created_at": self._created_at, "model": self._model}
        return response | self._echo | {"error": None, "incomplete_details": None}

    def _complete(self, response: Event) -> Event:
        """Return the final response: with what the request asked for, and incomplete if a limit has cut it."""
        usage = response["usage"]
        usage["input_tokens_details"] = {"cache_write_tokens": 0, **usage.get("input_tokens_details", {})}
        usage.setdefault("output_tokens_details", {"reasoning_tokens": 0})  # the engine does not count them
        output = sorted(response["output"], key=lambda item: self._indexes.get(item["id"], len(self._indexes)))
        response = self._common() | response | {"id": self._id, "created_at": self._created_at, "output": output}
        if self._is_cut(usage):
            response |= {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
            response.pop("completed_at", None)
            if output:
                output[-1]["status"] = "incomplete"
        return response

    def _is_cut(self, usage: dict[str, int]) -> bool:
        """Whether the answer has all the tokens it could have: the engine does not say why it has ended."""
        if 0 < self._limit <= usage["output_tokens"]:
            return True
        return 0 < self._context <= usage["input_tokens"] + usage["output_tokens"]
