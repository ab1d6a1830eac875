"""What this machine's processor can do."""

from __future__ import annotations

import torch


def cpu_has_bf16() -> bool:
    """AVX512-BF16 or AMX; the public query is recent, older torch has only a private one."""
    if hasattr(torch.cpu, "get_capabilities"):
        found = torch.cpu.get_capabilities()
        return bool(found.get("avx512_bf16") or found.get("amx_bf16"))
    return bool(torch.cpu._is_avx512_bf16_supported())
