"""Which proxy a request takes: the variables, their order, and what they exclude."""

from __future__ import annotations

import pytest

from llama_gguf.errors import ConfigError
from llama_gguf.settings.proxy import Proxy, proxy_for

HUB = "https://huggingface.co/x"
P, Q = "http://p:1", "http://q:2"


@pytest.mark.parametrize(
    ("env", "host"),
    [
        ({}, None),
        ({"https_proxy": P}, "p"),
        ({"HTTPS_PROXY": P}, "p"),
        ({"HTTPS_PROXY": P, "https_proxy": Q}, "q"),
        ({"HTTPS_PROXY": P, "https_proxy": " "}, "p"),
        ({"http_proxy": P}, None),
        ({"all_proxy": P, "http_proxy": Q}, "p"),
        ({"ALL_PROXY": P, "HTTPS_PROXY": Q}, "q"),
        ({"ALL_PROXY": f'"{P}"'}, "p"),
        ({"ALL_PROXY": f"{P}\r\n"}, "p"),
    ],
    ids=str,
)
def test_the_order_of_the_variables(env: dict[str, str], host: str | None) -> None:
    found = proxy_for(HUB, env)
    assert (found and found.host) == host


@pytest.mark.parametrize(
    ("text", "proxy"),
    [
        ("http://proxy:3128", Proxy("http", "proxy", 3128, "all_proxy")),
        ("proxy:3128", Proxy("http", "proxy", 3128, "all_proxy")),
        ("proxy", Proxy("http", "proxy", 80, "all_proxy")),
        ("10.0.0.1:8080/", Proxy("http", "10.0.0.1", 8080, "all_proxy")),
        ("HTTPS://Proxy", Proxy("https", "proxy", 443, "all_proxy")),
        ("u:p@proxy:1", Proxy("http", "proxy", 1, "all_proxy", "u", "p")),
        ("http://u%40d:p%2Fw%3A@proxy", Proxy("http", "proxy", 80, "all_proxy", "u@d", "p/w:")),
        ("http://[::1]:8080", Proxy("http", "::1", 8080, "all_proxy")),
        ("socks5://localhost:1055/", Proxy("socks5", "localhost", 1055, "all_proxy")),
        ("socks5h://s", Proxy("socks5", "s", 1080, "all_proxy")),
        ("socks://127.0.0.1:1080/", Proxy("socks5", "127.0.0.1", 1080, "all_proxy")),
    ],
)
def test_what_a_value_means(text: str, proxy: Proxy) -> None:
    assert proxy_for(HUB, {"all_proxy": text}) == proxy


def test_a_password_is_not_shown() -> None:
    found = proxy_for(HUB, {"https_proxy": "http://me:geheim@[::1]:1"})
    assert found
    assert found.description == "http://[::1]:1 (https_proxy)"
    assert "geheim" not in repr(found) + found.address


@pytest.mark.parametrize(
    "text",
    [
        "ftp://geheim",
        "socks4://geheim:1",
        "http://",
        "http://:3128",
        "http://u:geheim@h:port",
        "http://u:geheim@h:99999",
        "http://u:gehe/im@h:1",
        "http://u:gehe#im@h:1",
        "http://u:gehe?im@h:1",
        "http://[geheim",
        "http://ge heim",
        "http://u:v:geheim@",
        "geheim geheim",
    ],
)
def test_what_is_no_proxy_names_the_variable_and_nothing_of_the_value(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^ALL_PROXY: ") as caught:
        proxy_for(HUB, {"ALL_PROXY": text})
    assert "host:port" in caught.value.hint
    assert "geheim" not in str(caught.value)
    assert "gehe" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "no_proxy", "excluded"),
    [
        (HUB, "huggingface.co", True),
        (HUB, "HuggingFace.co", True),
        (HUB, ".huggingface.co", True),
        (HUB, "*.huggingface.co", True),
        (HUB, "co", True),
        (HUB, "face.co", False),
        (HUB, "a.com, huggingface.co ,b.com", True),
        (HUB, "a.com huggingface.co", True),
        (HUB, '"huggingface.co"', True),
        (HUB, "huggingface.co:443", True),
        (HUB, "huggingface.co:8443", False),
        (HUB, "*", True),
        (HUB, "", False),
        (HUB, ",. ,", False),
        (HUB, "10.0.0.0/8", False),
        ("https://cdn.huggingface.co/x", "huggingface.co", True),
        ("https://huggingface.co./x", "huggingface.co", True),
        ("https://10.1.2.3/x", "10.0.0.0/8", True),
        ("https://11.1.2.3/x", "10.0.0.0/8", False),
        ("https://10.1.2.3/x", "10.1.2.3", True),
        ("https://10.1.2.3:8443/x", "10.1.2.3:8443", True),
        ("https://10.1.2.3/x", "10.1.2.3:8443", False),
        ("https://[fd00::1]/x", "fd00::/8", True),
        ("https://[fd00::1]/x", "[fd00::1]", True),
        ("https://[fd00::1]:8443/x", "[fd00::1]:8443", True),
        ("https://[fd00::1]/x", "[fd00::1]:8443", False),
        ("https://localhost/x", "", True),
        ("https://127.0.0.1/x", "", True),
        ("https://[::1]/x", "", True),
    ],
)
def test_what_goes_directly(url: str, no_proxy: str, *, excluded: bool) -> None:
    assert (proxy_for(url, {"ALL_PROXY": P, "no_proxy": no_proxy}) is None) == excluded
    assert (proxy_for(url, {"ALL_PROXY": P, "NO_PROXY": no_proxy}) is None) == excluded
