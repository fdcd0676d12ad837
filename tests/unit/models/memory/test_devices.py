"""The table of cards, and the texts that name them."""

from __future__ import annotations

import random
import string

import pytest

from llama_gguf.models.memory.devices import (
    CARDS,
    MIB,
    DeviceError,
    bytes_of,
    find_card,
    gpus_of_names,
    gpus_of_sizes,
    usable_mib,
)

ALL = [card for cards in CARDS.values() for card in cards]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("RTX 4090", "RTX 4090"),
        ("4090", "RTX 4090"),
        ("rtx4090", "RTX 4090"),
        ("RTX_4090", "RTX 4090"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("RTX 4090 24GB", "RTX 4090"),
        ("NVIDIA GeForce RTX 4080 SUPER", "RTX 4080 SUPER"),
        ("RTX 4080S", "RTX 4080 SUPER"),
        ("RTX 4070S Ti", "RTX 4070 Ti SUPER"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "RTX 4090 Laptop"),
        ("NVIDIA A100 80GB PCIe", "A100 80GB"),
        ("NVIDIA A100-SXM4-80GB", "A100 80GB"),
        ("NVIDIA A100-SXM4-40GB", "A100 40GB"),
        ("Tesla V100-SXM2-32GB", "V100 32GB"),
        ("Tesla T4", "T4"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100"),
        ("H100 SXM", "H100"),
        ("NVIDIA H100 NVL", "H100 NVL"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada"),
        ("RTX 6000Ada", "RTX 6000 Ada"),
        ("RTX A6000", "RTX A6000"),
        ("Q RTX 8000", "Quadro RTX 8000"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "RTX PRO 6000"),
        ("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", "RTX PRO 6000"),
        ("RTX PRO 6000 WS", "RTX PRO 6000"),
        ("L40S", "L40S"),
        ("L40", "L40"),
        ("NVIDIA GeForce RTX 3080", None),
    ],
)
def test_a_card_as_vendors_and_hosts_spell_it(text: str, name: str | None) -> None:
    if name is None:
        with pytest.raises(DeviceError, match="10 GB or 12 GB; write 'RTX 3080 10GB'"):
            find_card(text)
    else:
        assert find_card(text).name == name


def test_each_card_is_found_by_its_own_name() -> None:
    assert len(ALL) > 90
    assert [find_card(card.name) for card in ALL] == ALL
    assert [find_card(f"nvidia {card.name.lower()}") for card in ALL] == ALL


def test_each_has_the_memory_it_is_sold_with() -> None:
    """The driver's total is never above it (GB of cards are GiB), and error correction takes at most a sixteenth."""
    assert sorted({card.name for card in ALL}) == sorted(card.name for card in ALL)
    for card in ALL:
        sold = card.sold_gb * 1024
        assert sold * 0.92 < card.total_mib <= sold * 1.03, card
        assert sold * 0.90 < card.usable_bytes / MIB < card.total_mib, card
        if card.name.endswith("GB"):
            assert card.name.endswith(f" {card.sold_gb}GB")


@pytest.mark.parametrize(
    ("total", "reported"),  # MiB: nvidia-smi's total, and CUDA's
    [
        (24564, 24080),
        (24576, 24124),
        (32607, 32109),
        (81920, 81152),
        (81559, 81090),
        (143771, 143166),
        (183359, 182631),
    ],
)
def test_what_the_driver_reserves_is_not_less_than_is_reported(total: int, reported: int) -> None:
    assert reported - 400 <= usable_mib(total) <= reported


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("RTX 4009", "did you mean 'RTX 4090'?"),
        ("nvidia geforce rtx 50900", "did you mean 'RTX 5090"),
        ("MI300X", "'MI300X' is no card of the table; --list-devices"),
        ("A100", "40 GB or 80 GB; write 'A100 40GB', or give --vram its size"),
        ("RTX 4090 48GB", "that card has 24 GB; write 'RTX 4090 24GB', or"),
        ("", "empty item"),
        ("RTX 4090,", "empty item"),
        ("0x L4", "from 1 to 64 GPUs"),
        ("65x L4", "from 1 to 64 GPUs"),
        ("60x L4, 5x T4", "65 GPUs; at most 64"),
        ("L4" * 600, "at most 1000 characters"),
        ("NVIDIA", "'NVIDIA' is no card"),
    ],
)
def test_what_is_no_card(text: str, complaint: str) -> None:
    with pytest.raises(DeviceError) as caught:
        gpus_of_names(text)
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("RTX 4090", ["RTX 4090"]),
        ("2x RTX 4090", ["RTX 4090"] * 2),
        ("2 x RTX 4090", ["RTX 4090"] * 2),
        ("RTX 4090 x2", ["RTX 4090"] * 2),
        ("RTX 4090 * 3", ["RTX 4090"] * 3),
        ("2xL40S, RTX 3060", ["L40S", "L40S", "RTX 3060"]),
    ],
)
def test_several_cards(text: str, names: list[str]) -> None:
    gpus = gpus_of_names(text)
    assert [gpu.name for gpu in gpus] == names
    assert [gpu.total_bytes for gpu in gpus] == [find_card(name).usable_bytes for name in names]


@pytest.mark.parametrize(
    ("text", "mebibytes"),
    [
        ("24GiB", [24576]),
        ("24G", [24576]),
        ("24GB", [24064]),  # as a card is sold
        ("24 gb", [24064]),
        ("2x24GB", [24064, 24064]),
        ("24GB x 2, 16GiB", [24064, 24064, 16384]),
        ("0", []),
        ("0GB, 1GiB", [1024]),
    ],
)
def test_sizes_of_gpus(text: str, mebibytes: list[int]) -> None:
    assert [gpu.total_bytes // MIB for gpu in gpus_of_sizes(text)] == mebibytes


@pytest.mark.parametrize("text", ["lots", "", "24GB,", "0.1GB", "-4GiB", "9" * 400, "nan", "24XB", "65x24GB", "1e9GiB"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(DeviceError):
        gpus_of_sizes(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("24GiB", 24 << 30),
        ("24gb", 24_000_000_000),
        ("1.5 TiB", 3 << 39),
        ("512M", 512 << 20),
        ("1000B", 1000),
        ("1234", 1234),
    ],
)
def test_bytes(text: str, size: int) -> None:
    assert bytes_of(text) == size


def test_any_text_ends_in_gpus_or_an_error() -> None:
    letters = string.ascii_letters + string.digits + " x×*,.-_GBi" + "٣²\u2028"  # noqa: RUF001
    draw = random.Random(7)
    for _ in range(3000):
        text = "".join(draw.choice(letters) for _ in range(draw.randrange(12)))
        for read in (gpus_of_names, gpus_of_sizes):
            try:
                gpus = read(text)
            except DeviceError:
                continue
            assert all(gpu.total_bytes > 0 for gpu in gpus)
