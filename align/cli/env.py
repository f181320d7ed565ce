"""``align env``: what a report of a fault needs to say about the machine."""

import argparse
import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import align

PACKAGES = (
    *("torch", "transformers", "trl", "peft", "accelerate", "datasets", "deepspeed", "safetensors", "tokenizers"),
    *("numpy", "pyarrow", "gguf", "bitsandbytes", "flash-attn"),
)
PREFIXES = (
    *("ALIGN_", "HF_", "HUGGINGFACE_", "TRANSFORMERS_", "DATASETS_", "TOKENIZERS_", "TORCH", "PYTORCH_", "CUDA_"),
    *("NCCL_", "GLOO_", "OMP_", "MKL_", "ACCELERATE_", "DEEPSPEED_", "FSDP_", "WANDB_", "SLURM_", "ROCR_", "HIP_"),
)
"""Environment variables that decide about a run, by how their names begin."""
LAUNCHED = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "PYTHONPATH")
SECRET = {"TOKEN", "TOKENS", "KEY", "KEYS", "SECRET", "PASSWORD", "PASSWD", "CREDENTIALS", "AUTH", "COOKIE"}
GIB = 2**30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Print the environment; the home folder is written ``~``, secrets only as ``set``."""
    found = environment()
    if arguments.json:
        print(json.dumps(found, indent=2))
        return 0
    for section, values in found.items():
        print(f"{section}:")
        for name, value in (values or {"none set": ""}).items():
            print(f"  {name + ':':24} {'not installed' if value is None else value}")
    return 0


def environment() -> dict[str, dict[str, Any]]:
    """Return what is known of align, the machine, packages, variables and folders, a mapping a section."""
    return {
        "align": aligned(),
        "machine": machine(),
        "gpus": gpus(),
        "packages": {name: installed(name) for name in PACKAGES},
        "variables": variables(os.environ),
        "folders": folders(),
    }


def aligned() -> dict[str, Any]:
    """Return align's version, where it is, and the commit of a checkout."""
    root = Path(align.__file__).parents[1]
    found = {"version": align.__version__, "path": short(root)}
    if (root / ".git").exists():
        commit, changed = _git(root, "rev-parse", "HEAD"), _git(root, "status", "--porcelain", "--untracked-files=no")
        found["commit"] = (commit or "unknown") + (", with changes" if changed else "")
    return found | {"python": platform.python_version(), "os": platform.platform()}


def _git(root: Path, *words: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, timeout=2, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def machine() -> dict[str, Any]:
    """Return the CPU, what of bfloat16 it is fast at, and the memory that a container leaves of it."""
    import torch

    from align.models.machine import free_memory
    from align.models.precision import fast_bfloat16

    capabilities = torch.cpu.get_capabilities()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = free_memory(torch.device("cpu"))
    return {
        "cpu": _fields(Path("/proc/cpuinfo")).get("model name") or platform.processor() or platform.machine(),
        "cores": f"{os.cpu_count()}, usable {usable}",
        "torch threads": torch.get_num_threads(),
        "amx": bool(capabilities.get("amx_bf16") or capabilities.get("amx_tile")),
        "avx512_bf16": bool(capabilities.get("avx512_bf16")),
        "fast bfloat16": fast_bfloat16(torch.device("cpu")),
        "memory, total": f"{memory.total / GIB:.1f} GiB",
        "memory, available": f"{memory.available / GIB:.1f} GiB ({memory.source})",
    }


def gpus() -> dict[str, Any]:
    """Return torch's CUDA and each GPU with its memory in GiB."""
    import torch

    built = torch.version.cuda or torch.version.hip
    found: dict[str, Any] = {"torch built for": built or "CPU", "count": torch.cuda.device_count()}
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        found[f"gpu {index}"] = f"{device.name}, {device.total_memory / GIB:.1f} GiB, {device.major}.{device.minor}"
    return found


def installed(package: str) -> str | None:
    """Return a package's version without importing it; None where it is absent."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that decide about a run; of those that may hold a secret only that they are set.

    Examples:
        >>> variables({"HF_TOKEN": "hf_x", "OMP_NUM_THREADS": "2", "LANG": "C"})
        {'HF_TOKEN': 'set', 'OMP_NUM_THREADS': '2'}
    """
    names = sorted(name for name in environ if name.startswith(PREFIXES) or name in LAUNCHED)
    return {name: "set" if SECRET & set(name.split("_")) else short(_public(environ[name])) for name in names}


def _public(value: str) -> str:
    return re.sub(r"(://)[^/@\s]+@", r"\1...@", value)


def folders() -> dict[str, Any]:
    """Return the caches with their size, and accelerate's default configuration."""
    from align.data.cache import cache_root

    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface").expanduser()
    default = home / "accelerate" / "default_config.yaml"
    said = _fields(default)
    settings = ", ".join(f"{key} {said[key]}" for key in ("distributed_type", "num_processes") if key in said)
    return {
        "align cache": f"{short(cache_root())} ({size(cache_root())})",
        "hub cache": short(home),
        "accelerate default": f"{short(default)} ({settings})" if default.is_file() else "none",
    }


def size(folder: Path, most: int = 100_000) -> str:
    """Return what the files below a folder weigh; counting stops at ``most`` files."""
    if not folder.is_dir():
        return "not there"
    total = seen = 0
    for place, _, names in os.walk(folder):
        for name in names:
            seen += 1
            try:
                total += os.lstat(os.path.join(place, name)).st_size
            except OSError:  # removed in the meantime
                continue
        if seen >= most:
            return f"more than {total / GIB:.2f} GiB in {seen:,} files"
    return f"{total / GIB:.2f} GiB in {seen:,} files"


def short(path: Path | str) -> str:
    """Return text with the home folder written ``~``."""
    home = str(Path.home())
    return str(path) if home == "/" else re.sub(rf"{re.escape(home)}(?=/|:|$)", "~", str(path))


def _fields(file: Path) -> dict[str, str]:
    """Return ``name: value`` lines of a file, the first of each name; none where it cannot be read."""
    try:
        text = file.read_text(errors="replace")
    except OSError:
        return {}
    pairs = [line.partition(":") for line in reversed(text.splitlines())]
    return {name.strip(): value.strip() for name, colon, value in pairs if colon}
