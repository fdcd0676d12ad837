"""Tools and the choice of one: what llama-server would drop or misread is done right here, or refused. Pure.

llama-server knows "auto", "none" and "required" only. It reads a named tool as "auto" (chat) or as any tool (messages),
`none` of messages as "auto", and skips hosted tools such as web_search, which nobody here could run. A named choice is
made true by offering that tool alone and requiring one.
"""

from __future__ import annotations

from typing import Any

from llama_gguf.gateway.request.changes import Changes
from llama_gguf.gateway.request.refusal import kind, quoted, refusal

_MODES = ("auto", "none", "required")


def check_chat_tools(body: dict[str, Any], changes: Changes) -> None:
    """Check `tools` and `tool_choice` of chat completions. Raises GatewayError."""
    for name in ("functions", "function_call"):
        if body.get(name) is not None:
            raise refusal(name, "is not supported; use `tools` and `tool_choice`.")
    tools = _list_of_tools(body)
    for index, tool in enumerate(tools):
        path = f"tools[{index}]"
        if tool.get("type") != "function":
            raise refusal(f"{path}.type", f'must be "function", not {quoted(tool.get("type"))}.')
        function = tool.get("function")
        if not isinstance(function, dict):
            raise refusal(f"{path}.function", f"must be an object, not {kind(function)}.")
        _check_function(function, f"{path}.function", "parameters", changes)
    choice = body.get("tool_choice")
    if isinstance(choice, dict):
        _choose(body, _chat_names(choice), tools, changes)
    else:
        _check_mode(choice, tools)


def check_responses_tools(body: dict[str, Any], changes: Changes) -> None:
    """Check `tools` and `tool_choice` of the Responses API: tools are flat, and hosted ones are left out."""
    tools = _list_of_tools(body)
    functions = [tool for tool in tools if tool.get("type") == "function"]
    for index, tool in enumerate(tools):
        path = f"tools[{index}]"
        if tool.get("type") == "function":
            _check_function(tool, path, "parameters", changes)
        elif not isinstance(tool.get("type"), str):
            raise refusal(f"{path}.type", f"must be a string, not {kind(tool.get('type'))}.")
        else:
            changes.warn(f"{path} is left out: this server has no {tool['type']}")
    if len(functions) != len(tools):
        _replace_tools(body, functions, changes)
    choice = body.get("tool_choice")
    if isinstance(choice, dict):
        _choose(body, _flat_names(choice), functions, changes)
    else:
        _check_mode(choice, functions)


def check_messages_tools(body: dict[str, Any], changes: Changes) -> None:
    """Check `tools` and `tool_choice` of Anthropic's Messages API; tools that Anthropic runs are left out."""
    tools = _list_of_tools(body)
    own = [tool for tool in tools if tool.get("type") in (None, "custom")]
    for index, tool in enumerate(tools):
        path = f"tools[{index}]"
        if tool.get("type") in (None, "custom"):
            _check_function(tool, path, "input_schema", changes)
        else:
            changes.warn(f"{path} is left out: this server has no {tool['type']}")
    if len(own) != len(tools):
        _replace_tools(body, own, changes)
    choice = body.get("tool_choice")
    if choice is None:
        return
    mode = choice.get("type") if isinstance(choice, dict) else choice
    if isinstance(choice, dict) and choice.get("disable_parallel_tool_use") and mode != "none":
        changes.warn("tool_choice.disable_parallel_tool_use is not enforced")
    if mode == "none":
        _replace_tools(body, [], changes)
        del body["tool_choice"]
    elif mode == "tool":
        _choose(body, ([choice.get("name")], "any"), own, changes)
        body["tool_choice"] = {"type": "any"}
    elif mode not in ("auto", "any") or not isinstance(choice, dict):
        raise refusal("tool_choice.type", "must be auto, any, tool or none.")
    elif mode == "any" and not own:
        raise refusal("tool_choice", "requires a tool, and `tools` has none that this server can offer.")


def _list_of_tools(body: dict[str, Any]) -> list[dict[str, Any]]:
    tools = body.get("tools")
    if tools is None:
        return []
    if not isinstance(tools, list):
        raise refusal("tools", f"must be a list, not {kind(tools)}.")
    for index, tool in enumerate(tools):
        if not isinstance(tool, dict):
            raise refusal(f"tools[{index}]", f"must be an object, not {kind(tool)}.")
    return tools


def _check_function(function: dict[str, Any], path: str, schema: str, changes: Changes) -> None:
    name = function.get("name")
    if not isinstance(name, str) or not name.strip():
        raise refusal(f"{path}.name", f"must be a name, not {quoted(name)}.")
    if len(name) > _MAX_NAME:
        raise refusal(f"{path}.name", f"must not be longer than {_MAX_NAME} characters.")
    for field, wanted, words in (
        ("description", str, "a string"),
        (schema, dict, "an object"),
        ("strict", bool, "a boolean"),
    ):
        value = function.get(field)
        if value is None:
            if field in function:
                del function[field]
                changes.changed = True
        elif not isinstance(value, wanted):
            raise refusal(f"{path}.{field}", f"must be {words}, not {kind(value)}.")


_MAX_NAME = 128  # OpenAI's and Anthropic's limit; the engine runs a recursive regular expression over it


def _check_mode(choice: object, tools: list[dict[str, Any]]) -> None:
    if choice is None:
        return
    if choice not in _MODES:
        raise refusal("tool_choice", f"must be auto, none, required or a tool, not {quoted(choice)}.")
    if choice == "required" and not tools:
        raise refusal("tool_choice", "requires a tool, and `tools` has none that this server can offer.")


def _chat_names(choice: dict[str, Any]) -> tuple[list[Any], str]:
    """Return the names that a choice of chat completions allows, and the mode that remains."""
    allowed = choice.get("allowed_tools") if choice.get("type") == "allowed_tools" else None
    if isinstance(allowed, dict):
        return [_inner(tool).get("name") for tool in _tools_of(allowed)], str(allowed.get("mode", "auto"))
    if choice.get("type") != "function" or not isinstance(choice.get("function"), dict):
        raise refusal("tool_choice", 'must be like {"type": "function", "function": {"name": "..."}}.')
    return [choice["function"].get("name")], "required"


def _flat_names(choice: dict[str, Any]) -> tuple[list[Any], str]:
    """Return the same for the Responses API."""
    if choice.get("type") == "allowed_tools":
        return [tool.get("name") for tool in _tools_of(choice)], str(choice.get("mode", "auto"))
    if choice.get("type") != "function":
        raise refusal("tool_choice.type", f'must be "function"; this server has no {quoted(choice.get("type"))}.')
    return [choice.get("name")], "required"


def _tools_of(allowed: dict[str, Any]) -> list[dict[str, Any]]:
    tools = allowed.get("tools")
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise refusal("tool_choice.tools", "must be a list of tools.")
    return tools


def _inner(tool: dict[str, Any]) -> dict[str, Any]:
    function = tool.get("function")
    return function if isinstance(function, dict) else tool


def _choose(body: dict[str, Any], chosen: tuple[list[Any], str], tools: list[dict[str, Any]], changes: Changes) -> None:
    """Offer only the tools of these names, in the mode that remains."""
    names, mode = chosen
    known = {_inner(tool)["name"] for tool in tools}
    for name in names:
        if not isinstance(name, str) or name not in known:
            raise refusal("tool_choice", f"names {quoted(name)}, which is not in `tools`.")
    if not names or mode not in (*_MODES, "any"):
        raise refusal("tool_choice", "must name at least one tool, and a mode of auto or required.")
    _replace_tools(body, [tool for tool in tools if _inner(tool)["name"] in names], changes)
    body["tool_choice"] = mode


def _replace_tools(body: dict[str, Any], tools: list[dict[str, Any]], changes: Changes) -> None:
    changes.changed = True
    if tools:
        body["tools"] = tools
    else:
        body.pop("tools", None)
