"""`accord doctor`: what is installed, what is here, and what works."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from accordance.app import options as o
from accordance.app.terminal import Terminal, command, silence_loaded

_EXTRAS = {
    "vllm": ("vllm", "fast generation on GPUs"),
    "inspect": ("inspect_ai", "judges and benchmarks through any provider"),
    "sklearn": ("sklearn", "models over features"),
    "quant": ("bitsandbytes", "4 and 8 bit weights"),
    "deepspeed": ("deepspeed", "zero2 and zero3"),
}
_VARIABLES = ("HF_HOME", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "ACCORD_CACHE", "OMP_NUM_THREADS")


@command
def doctor(terminal: Terminal, as_json: o.AsJson = False, verbose: o.Verbose = False) -> None:
    """Look at the environment: versions, devices, extras, and whether log-probabilities come out exact here.

    Example: `accord doctor --json`
    """
    import importlib.util

    from accordance.app.recipe import versions

    if not verbose:
        silence_loaded()
    extras = {
        extra: {"installed": importlib.util.find_spec(module) is not None, "for": purpose}
        for extra, (module, purpose) in _EXTRAS.items()
    }
    checks = {name: _try(check) for name, check in _CHECKS.items()}
    found = {
        "versions": versions(),
        "machine": _machine(),
        "environment": {name: os.environ.get(name) for name in _VARIABLES},
        "extras": extras,
        "checks": checks,
        "ok": all(check["ok"] for check in checks.values()),
    }

    def show(console: Any) -> None:
        console.print(terminal.table("Versions", ["", ""], list(found["versions"].items())))
        console.print(terminal.table("Machine", ["", ""], list(found["machine"].items())))
        rows = [
            [n, "yes" if e["installed"] else f"no: pip install 'accordance[{n}]'", e["for"]]
            for n, e in extras.items()
        ]
        console.print(terminal.table("Extras", ["", "installed", "for"], rows))
        rows = [[name, "yes" if check["ok"] else "NO", check["found"]] for name, check in checks.items()]
        console.print(terminal.table("What works here", ["", "", ""], rows))

    terminal.result(found, show)
    if not found["ok"]:
        raise typer.Exit(1)


def _machine() -> dict[str, Any]:
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    return {
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "torch threads": torch.get_num_threads(),
        "memory GB": round(pages / 1e9, 1),
        "free disk GB": round(shutil.disk_usage(Path.cwd()).free / 1e9, 1),
        "GPUs": ", ".join(gpus) or "none",
        "bf16 on GPU": bool(gpus) and torch.cuda.is_bf16_supported(),
    }


def _try(check: Callable[[], str]) -> dict[str, Any]:
    try:
        return {"ok": True, "found": check()}
    except Exception as error:  # whatever is broken here is what the doctor is asked about
        return {"ok": False, "found": f"{type(error).__name__}: {error}"}


def _exact() -> str:
    """Log-probabilities and gradients of the packed path against a plain forward, on a small random model."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from accordance.core.errors import ModelError
    from accordance.models import Engine, Group, naive_logps

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=97,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model: Any = LlamaForCausalLM(config)
    model.to(device).eval()
    engine = Engine(model)
    draw = torch.Generator().manual_seed(0)

    def ids(size: int) -> list[int]:
        return torch.randint(97, (size,), generator=draw).tolist()

    groups = [Group(ids(n), [ids(m), ids(m + 3)]) for n, m in ((5, 4), (11, 2), (3, 7))]
    fast = engine(groups).logp
    plain = torch.cat([naive_logps(model, group) for group in groups])
    off = float(((fast - plain).abs() / plain.abs()).max())
    slopes = [torch.autograd.grad(x.sum(), list(model.parameters()), allow_unused=True) for x in (fast, plain)]
    pairs = [(a, b) for a, b in zip(*slopes) if a is not None and b is not None]
    slope = max(float((a - b).abs().max() / b.abs().max().clamp_min(1e-8)) for a, b in pairs)
    if max(off, slope) > 1e-4:
        raise ModelError("log-probabilities are not exact here", found=f"{off:.1e}; gradients {slope:.1e}")
    path = "prompts shared" if engine.shared else f"plain: {engine.reason}"
    return f"relative error {off:.1e}, of gradients {slope:.1e} on {device} ({path})"


def _cache() -> str:
    from accordance.app.folder import check_writable

    place = Path(os.environ.get("ACCORD_CACHE") or Path.home() / ".cache" / "accordance")
    check_writable(place)
    return str(place)


def _base() -> str:
    from accordance.lab import base_model_path

    return str(base_model_path())


_CHECKS: dict[str, Callable[[], str]] = {
    "log-probabilities are exact": _exact,
    "cache can be written": _cache,
    "embedded base model": _base,
}
