"""Flags as /proc/cpuinfo of real machines has them."""

from __future__ import annotations

from typing import get_args

import pytest

from llama_gguf.cpu import read_cpu
from llama_gguf.engine.cpu_variants import AARCH64, TABLES, X86_64, missing, score, supported, usable_flags
from llama_gguf.settings.sections.engine import CpuVariant

EMERALD_RAPIDS = """\
processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 207
model name\t: INTEL(R) XEON(R) PLATINUM 8581C CPU @ 2.10GHz
stepping\t: 2
microcode\t: 0xffffffff
flags\t\t: fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 ss ht \
syscall nx pdpe1gb rdtscp lm constant_tsc rep_good nopl xtopology nonstop_tsc cpuid tsc_known_freq pni pclmulqdq \
ssse3 fma cx16 pcid sse4_1 sse4_2 x2apic movbe popcnt aes xsave avx f16c rdrand hypervisor lahf_lm abm 3dnowprefetch \
ssbd ibrs ibpb stibp ibrs_enhanced fsgsbase tsc_adjust bmi1 hle avx2 smep bmi2 erms invpcid rtm avx512f avx512dq \
rdseed adx smap avx512ifma clflushopt clwb avx512cd sha_ni avx512bw avx512vl xsaveopt xsavec xgetbv1 xsaves avx_vnni \
avx512_bf16 arat avx512vbmi umip avx512_vbmi2 gfni vaes vpclmulqdq avx512_vnni avx512_bitalg avx512_vpopcntdq la57 \
rdpid cldemote movdiri movdir64b fsrm md_clear serialize tsxldtrk amx_bf16 avx512_fp16 amx_tile amx_int8 \
arch_capabilities
bugs\t\t: spectre_v1 spectre_v2 spec_store_bypass swapgs
"""
EPYC_ZEN_2 = """\
model name\t: AMD EPYC 7B12
flags\t\t: fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 ht \
syscall nx mmxext fxsr_opt pdpe1gb rdtscp lm constant_tsc rep_good nopl nonstop_tsc cpuid extd_apicid tsc_known_freq \
pni pclmulqdq ssse3 fma cx16 sse4_1 sse4_2 movbe popcnt aes xsave avx f16c rdrand hypervisor lahf_lm cmp_legacy \
cr8_legacy abm sse4a misalignsse 3dnowprefetch osvw topoext ssbd ibrs ibpb stibp vmmcall fsgsbase tsc_adjust bmi1 \
avx2 smep bmi2 rdseed adx smap clflushopt clwb sha_ni xsaveopt xsavec xgetbv1 clzero xsaveerptr arat npt nrip_save \
umip rdpid
"""
EPYC_ZEN_4 = """\
model name\t: AMD EPYC 9B14
flags\t\t: fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 ht \
syscall nx mmxext fxsr_opt pdpe1gb rdtscp lm constant_tsc rep_good nopl nonstop_tsc cpuid extd_apicid tsc_known_freq \
pni pclmulqdq ssse3 fma cx16 pcid sse4_1 sse4_2 x2apic movbe popcnt aes xsave avx f16c rdrand hypervisor lahf_lm \
cmp_legacy cr8_legacy abm sse4a misalignsse 3dnowprefetch osvw topoext ssbd ibrs ibpb stibp vmmcall fsgsbase \
tsc_adjust bmi1 avx2 smep bmi2 erms invpcid avx512f avx512dq rdseed adx smap avx512ifma clflushopt clwb avx512cd \
sha_ni avx512bw avx512vl xsaveopt xsavec xgetbv1 xsaves avx512_bf16 clzero xsaveerptr wbnoinvd arat avx512vbmi umip \
avx512_vbmi2 gfni vaes vpclmulqdq avx512_vnni avx512_bitalg avx512_vpopcntdq rdpid fsrm
"""
EPYC_ZEN_5 = """\
model name\t: AMD EPYC
flags\t\t: fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 ht \
syscall nx mmxext fxsr_opt pdpe1gb rdtscp lm constant_tsc rep_good nopl xtopology nonstop_tsc cpuid extd_apicid \
tsc_known_freq pni pclmulqdq ssse3 fma cx16 pcid sse4_1 sse4_2 x2apic movbe popcnt tsc_deadline_timer aes xsave avx \
f16c rdrand hypervisor lahf_lm cmp_legacy cr8_legacy abm sse4a misalignsse 3dnowprefetch osvw topoext vmmcall \
fsgsbase tsc_adjust bmi1 avx2 smep bmi2 erms invpcid avx512f avx512dq adx smap avx512ifma clflushopt clwb avx512cd \
sha_ni avx512bw avx512vl xsaveopt xsavec xgetbv1 xsaves avx_vnni avx512_bf16 clzero xsaveerptr arat avx512vbmi umip \
avx512_vbmi2 gfni vaes vpclmulqdq avx512_vnni avx512_bitalg avx512_vpopcntdq rdpid fsrm avx512_vp2intersect
"""
IVY_BRIDGE = """\
model name\t: Intel(R) Xeon(R) CPU @ 2.50GHz
flags\t\t: fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 ss ht \
syscall nx pdpe1gb rdtscp lm constant_tsc rep_good nopl xtopology nonstop_tsc cpuid tsc_known_freq pni pclmulqdq \
ssse3 cx16 pcid sse4_1 sse4_2 x2apic popcnt aes xsave avx f16c rdrand hypervisor lahf_lm pti ssbd ibrs ibpb stibp \
fsgsbase tsc_adjust smep erms xsaveopt arat md_clear
"""
GRAVITON_2 = """\
processor\t: 0
BogoMIPS\t: 243.75
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp ssbs
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x3
CPU part\t: 0xd0c
CPU revision\t: 1
"""
GRAVITON_3 = """\
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm jscvt fcma lrcpc dcpop \
sha3 sm3 sm4 asimddp sha512 sve asimdfhm dit uscat ilrcpc flagm ssbs paca pacg dcpodp svei8mm svebf16 i8mm bf16 dgh \
rng
CPU implementer\t: 0x41
CPU part\t: 0xd40
"""
GRAVITON_4 = GRAVITON_3.replace(" sve ", " sve sve2 sveaes ").replace("0xd40", "0xd4f")
AVX512 = ("cascadelake", "cannonlake", "skylakex")
AVX2 = ("haswell", "piledriver", "ivybridge", "sandybridge", "sse42", "x64")


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        (
            EMERALD_RAPIDS,
            ("sapphirerapids", "zen4", "cooperlake", "icelake", *AVX512, "alderlake", *AVX2),
        ),
        (EPYC_ZEN_2, AVX2),
        (EPYC_ZEN_4, ("zen4", "cooperlake", "icelake", *AVX512, *AVX2)),
        (EPYC_ZEN_5, ("zen4", "cooperlake", "icelake", *AVX512, "alderlake", *AVX2)),
        (IVY_BRIDGE, ("ivybridge", "sandybridge", "sse42", "x64")),
        # The CPU has it, and CPUID says so; this kernel is too old to have enabled it, and its flags leave it out.
        (
            EMERALD_RAPIDS.replace("amx_bf16 avx512_fp16 amx_tile amx_int8 ", ""),
            ("zen4", "cooperlake", "icelake", *AVX512, "alderlake", *AVX2),
        ),
    ],
    ids=["Emerald Rapids", "Zen 2", "Zen 4", "Zen 5", "Ivy Bridge", "Emerald Rapids on an old kernel"],
)
def test_variants_of_x86(cpuinfo: str, expected: tuple[str, ...]) -> None:
    cpu = read_cpu(cpuinfo)
    assert cpu is not None
    assert supported(X86_64, cpu.flags) == expected


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        (GRAVITON_2, ("armv8.2_2", "armv8.2_1", "armv8.0_1")),
        (GRAVITON_3, ("armv8.6_1", "armv8.2_3", "armv8.2_2", "armv8.2_1", "armv8.0_1")),
        (GRAVITON_4, ("armv8.6_2", "armv8.6_1", "armv8.2_3", "armv8.2_2", "armv8.2_1", "armv8.0_1")),
    ],
    ids=["Graviton 2", "Graviton 3", "Graviton 4"],
)
def test_variants_of_arm(cpuinfo: str, expected: tuple[str, ...]) -> None:
    cpu = read_cpu(cpuinfo)
    assert cpu is not None
    assert supported(AARCH64, cpu.flags) == expected


def test_the_settings_names_are_the_tables() -> None:
    assert get_args(CpuVariant) == (*X86_64, *AARCH64)


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_no_two_variants_rank_alike_and_more_features_rank_higher(table: dict[str, frozenset[str]]) -> None:
    scores = {name: score(features) for name, features in table.items()}
    assert len(set(scores.values())) == len(scores)
    for name, features in table.items():
        for other, fewer in table.items():
            assert not fewer < features or scores[other] < scores[name]


def test_scores_are_ggmls() -> None:
    expected = {"x64": 1, "sse42": 5, "haswell": 64, "skylakex": 192, "alderlake": 128, "sapphirerapids": 4032}
    assert {name: score(X86_64[name]) for name in expected} == expected
    assert score(AARCH64["armv9.2_2"]) == 127


def test_what_is_missing() -> None:
    assert missing(X86_64, "icelake", frozenset(("sse4_2", "avx", "f16c", "fma", "avx2", "bmi2", "avx512f"))) == [
        "avx512_vnni",
        "avx512bw",
        "avx512cd",
        "avx512dq",
        "avx512vbmi",
        "avx512vl",
    ]
    assert missing(X86_64, "x64", frozenset()) == []


def test_the_flags_that_all_cores_have_count() -> None:
    cpu = read_cpu("model name: A\nflags: sse4_2 avx avx2\n\nmodel name: B\nflags: sse4_2 avx\n")
    assert cpu is not None
    assert (cpu.model, sorted(cpu.flags)) == ("A", ["avx", "sse4_2"])


@pytest.mark.parametrize("text", ["", "processor: 0\n", "flags:\n", "\x00", "flags: a\nflags: b\n", "flags avx\n"])
def test_a_cpuinfo_that_says_nothing(text: str) -> None:
    assert read_cpu(text) is None


def test_fingerprints_tell_cpus_apart_and_nothing_else() -> None:
    texts = [EMERALD_RAPIDS, EPYC_ZEN_2, EPYC_ZEN_4, EPYC_ZEN_5, IVY_BRIDGE, GRAVITON_2, GRAVITON_3, GRAVITON_4]
    cpus = [read_cpu(text) for text in texts]
    assert len({cpu.fingerprint for cpu in cpus if cpu}) == len(texts)
    (same, again, other) = (
        read_cpu(text)
        for text in (
            EMERALD_RAPIDS * 2,
            EMERALD_RAPIDS.replace("fpu vme", "vme fpu"),
            EMERALD_RAPIDS.replace("8581C", "8592+"),
        )
    )
    assert cpus[0]
    assert same
    assert again
    assert other
    assert same.fingerprint == again.fingerprint == cpus[0].fingerprint != other.fingerprint


def test_a_lower_variant_makes_use_of_less_than_the_cpu_has() -> None:
    haswell = frozenset(["fpu", "sse4_2", "avx", "f16c", "fma", "avx2", "bmi2"])
    flags = haswell | {"avx512f", "avx512_vnni", "amx_tile", "amx_int8"}
    assert usable_flags(X86_64, "haswell", flags) == haswell
    assert usable_flags(X86_64, "sapphirerapids", flags) == flags
    assert usable_flags(X86_64, "x64", flags) == {"fpu"}
