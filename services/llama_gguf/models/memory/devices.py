"""GPUs as data, and the texts that name them: how much memory llama-server can use on a card not rented yet. Pure.

A card is sold in GB that are GiB. The driver reports a little less, because of error correction for instance, and of
that it reserves some for itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from llama_gguf.settings.words import closest

MIB = 1 << 20
_MIB_PER_GIB = 1024
_MAX_GPUS = 64
_MAX_TEXT = 1000


@dataclass(frozen=True, slots=True)
class Card:
    """A kind of GPU: its name, the GB it is sold with, and the MiB that nvidia-smi reports as total."""

    name: str
    sold_gb: int
    total_mib: int

    @property
    def usable_bytes(self) -> int:
        """What CUDA reports as its memory."""
        return usable_mib(self.total_mib) * MIB


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU to plan for, and its bytes."""

    name: str
    total_bytes: int


class DeviceError(ValueError):
    """A text that names no GPU; its message says why, and what to write."""


def usable_mib(total_mib: int) -> int:
    """Return what is left of nvidia-smi's total for CUDA.

    The driver reserves 350 to 770 MiB, from an RTX 3060 to a B200: this counts the upper end of that at each size.
    """
    return total_mib - min(max(total_mib // 80, 512), 768)


_CONSUMER = """
    GTX 1070|8|8192  GTX 1080|8|8192  GTX 1080 Ti|11|11264
    RTX 2060 6GB|6|6144  RTX 2060 12GB|12|12288  RTX 2060 SUPER|8|8192  RTX 2070|8|8192  RTX 2070 SUPER|8|8192
    RTX 2080|8|8192  RTX 2080 SUPER|8|8192  RTX 2080 Ti|11|11264  TITAN RTX|24|24576  TITAN V|12|12288
    TITAN Xp|12|12288
    RTX 3050|8|8192  RTX 3060|12|12288  RTX 3060 Ti|8|8192  RTX 3070|8|8192  RTX 3070 Ti|8|8192
    RTX 3080 10GB|10|10240  RTX 3080 12GB|12|12288  RTX 3080 Ti|12|12288  RTX 3090|24|24576  RTX 3090 Ti|24|24564
    RTX 4060|8|8188  RTX 4060 Ti 8GB|8|8188  RTX 4060 Ti 16GB|16|16380  RTX 4070|12|12282
    RTX 4070 SUPER|12|12282  RTX 4070 Ti|12|12282  RTX 4070 Ti SUPER|16|16376  RTX 4080|16|16376
    RTX 4080 SUPER|16|16376  RTX 4090|24|24564  RTX 4090 D|24|24564
    RTX 5050|8|8151  RTX 5060|8|8151  RTX 5060 Ti 8GB|8|8151  RTX 5060 Ti 16GB|16|16311  RTX 5070|12|12227
    RTX 5070 Ti|16|16303  RTX 5080|16|16303  RTX 5090|32|32607  RTX 5090 D|32|32607
    RTX 4070 Laptop|8|8188  RTX 4080 Laptop|12|12282  RTX 4090 Laptop|16|16376  RTX 5070 Ti Laptop|12|12227
    RTX 5080 Laptop|16|16303  RTX 5090 Laptop|24|24463
"""
_WORKSTATION = """
    Quadro P4000|8|8192  Quadro P5000|16|16384  Quadro P6000|24|24576
    Quadro RTX 4000|8|8192  Quadro RTX 5000|16|16384  Quadro RTX 6000|24|24576  Quadro RTX 8000|48|49152
    RTX A2000 6GB|6|6138  RTX A2000 12GB|12|12282  RTX A4000|16|16376  RTX A4500|20|20470  RTX A5000|24|24564
    RTX A6000|48|49140
    RTX 2000 Ada|16|16380  RTX 4000 Ada|20|20475  RTX 4000 SFF Ada|20|20475  RTX 4500 Ada|24|24570
    RTX 5000 Ada|32|32760  RTX 5880 Ada|48|49140  RTX 6000 Ada|48|49140
    RTX PRO 2000|16|16311  RTX PRO 4000|24|24467  RTX PRO 4500|32|32623  RTX PRO 5000|48|48935
    RTX PRO 6000|96|97887
"""
_DATA_CENTRE = """
    P40|24|23040  P100|16|16384  V100 16GB|16|16384  V100 32GB|32|32768  T4|16|15360  T4G|16|15360
    A2|16|15356  A10|24|23028  A10G|24|23028  A16|16|15356  A30|24|24576  A40|48|46068
    A100 40GB|40|40960  A100 80GB|80|81920  A800 40GB|40|40960  A800 80GB|80|81920
    L4|24|23034  L20|48|46068  L40|48|46068  L40S|48|46068
    H100|80|81559  H100 NVL|94|95830  H800|80|81559  H20|96|97871  H200|141|143771  H200 NVL|141|143771
    GH200|96|97871  B200|180|183359  B300|288|275040  GB200|186|189471
"""


def _cards(table: str) -> tuple[Card, ...]:
    rows = (row.split("|") for row in re.split(r"\s{2,}|\n", table.strip()) if row)
    return tuple(Card(name, int(sold), int(total)) for name, sold, total in rows)


CARDS: dict[str, tuple[Card, ...]] = {
    "consumer": _cards(_CONSUMER),
    "workstation": _cards(_WORKSTATION),
    "data centre": _cards(_DATA_CENTRE),
}
"""By market. Totals are those of nvidia-smi, with error correction where it is on."""

# What vendors and hosts write around a name, and what does not decide the memory.
_DECORATION = re.compile(
    r"\b(?:nvidia|geforce|tesla|graphics|card|gpu|generation|edition|blackwell|server|workstation|ws|max ?q|pcie?"
    r"|sxm\d?|hbm\d?e?)\b"
)
_SHORT = ((re.compile(r"\bq(?= rtx)"), "quadro"), (re.compile(r"(\d{4})s( ti)?\b"), r"\1\2 super"))  # Vast.ai's
_SIZE_IN_NAME = re.compile(r"(?<!\d)(\d{1,3})\s?gi?b\b")
_COUNTED = re.compile(r"(?:(?P<before>\d{1,3})\s*[x×*]\s*)?(?P<name>.+?)(?:\s*[x×*]\s*(?P<after>\d{1,3}))?")  # noqa: RUF001
_SIZE = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[KMGT]?)(?P<binary>i?)(?P<byte>B?)", re.IGNORECASE)
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


def bytes_of(text: str) -> int:
    """Return the bytes that `24GiB`, `24G` (the same) or `16000MB` mean. Raises DeviceError."""
    match = _SIZE.fullmatch(text.strip())
    if match is None or len(match["number"]) > 30:
        raise DeviceError(f"{text[:50]!r} is not a size; write 24GiB, 16000MiB or a number of bytes")
    decimal = match["byte"] and match["unit"] and not match["binary"]
    return int(float(match["number"]) * (1000 if decimal else 1024) ** _POWERS[match["unit"].upper()])


def gpus_of_sizes(text: str) -> tuple[Gpu, ...]:
    """Return the GPUs of `24GiB`, `24GB`, `2x24GB` or `24GB,16GB`; none for 0. Raises DeviceError.

    In GB it is the size that a card is sold with: 24 GB are 24 GiB less what the driver reserves. All others are exact.
    """
    gpus: list[Gpu] = []
    for count, size in _listed(text):
        match = _SIZE.fullmatch(size)
        if match and (match["unit"] + match["binary"] + match["byte"]).upper() == "GB" and bytes_of(size):
            total = usable_mib(round(float(match["number"]) * _MIB_PER_GIB)) * MIB
        else:
            total = bytes_of(size)
        if total < 0:
            raise DeviceError(f"a card of {size} is too small for a driver; write its size as in 24GB")
        gpus += [Gpu(f"GPU with {size}", total)] * count
    return _few(gpu for gpu in gpus if gpu.total_bytes)


def gpus_of_names(text: str) -> tuple[Gpu, ...]:
    """Return the GPUs of `RTX 4090`, `2x L40S` or `RTX 3090, RTX 3060`. Raises DeviceError for an unknown card."""
    return _few(
        Gpu(card.name, card.usable_bytes) for count, name in _listed(text) for card in [find_card(name)] * count
    )


def find_card(text: str) -> Card:
    """Return the card that `text` names, as vendors and hosts spell it. Raises DeviceError with what is similar."""
    wanted, size = _key(text)
    cards = [card for cards in CARDS.values() for card in cards]
    same = [card for card in cards if _key(card.name)[0] == wanted]
    found = [card for card in same if size in (None, card.sold_gb)]
    if len(found) == 1:
        return found[0]
    if same:
        sizes = " or ".join(f"{card.sold_gb} GB" for card in same)
        raise DeviceError(f"{text!r}: that card has {sizes}; write {_spelled(same[0])}, or give --vram its size")
    near = closest(text, [card.name for card in cards]) or _near_key(wanted, cards)
    hint = f"did you mean {near!r}? " if near else ""
    raise DeviceError(f"{text!r} is no card of the table; {hint}--list-devices shows it, and --vram takes any size")


def _spelled(card: Card) -> str:
    return repr(card.name if card.name.endswith("GB") else f"{card.name} {card.sold_gb}GB")


def _near_key(wanted: str, cards: list[Card]) -> str | None:
    by_key = {_key(card.name)[0]: card.name for card in cards}
    near = closest(wanted, by_key)
    return by_key[near] if near else None


def _key(text: str) -> tuple[str, int | None]:
    """Return a name without decoration, and the GB in it: `NVIDIA A100-SXM4-80GB` is ("a100", 80)."""
    lower = re.sub(r"[_-]", " ", text.lower())
    for short, long in _SHORT:
        lower = short.sub(long, lower)
    size = _SIZE_IN_NAME.search(lower)
    bare = _DECORATION.sub(" ", _SIZE_IN_NAME.sub(" ", lower))
    return re.sub(r"rtx|gtx|[^a-z0-9]", "", bare), int(size[1]) if size else None


def _listed(text: str) -> list[tuple[int, str]]:
    """Return each item of a list with how often it is there."""
    if len(text) > _MAX_TEXT:
        raise DeviceError(f"a list of GPUs has at most {_MAX_TEXT} characters")
    items = []
    for item in text.split(","):
        match = _COUNTED.fullmatch(item.strip())
        if match is None:
            raise DeviceError(f"{text!r} has an empty item")
        count = int(match["before"] or match["after"] or 1)
        if not 1 <= count <= _MAX_GPUS:
            raise DeviceError(f"{item.strip()!r}: from 1 to {_MAX_GPUS} GPUs can be planned for")
        items.append((count, match["name"].strip()))
    return items


def _few(gpus: Iterable[Gpu]) -> tuple[Gpu, ...]:
    found = tuple(gpus)
    if len(found) > _MAX_GPUS:
        raise DeviceError(f"{len(found)} GPUs; at most {_MAX_GPUS} can be planned for")
    return found
