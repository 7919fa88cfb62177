"""One loop for every recipe: a time budget with its schedule, averaged weights, checkpoints that resume."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from restore_plugin.errors import InputError
from restore_plugin.training import data

Batch = tuple[Tensor, ...]


def adamw(network: nn.Module, rate: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(network.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=1e-4)


@dataclass(frozen=True)
class Options:
    """What a run needs besides its recipe."""

    folder: Path  # checkpoints and log.jsonl go here
    minutes: float  # training time in all, earlier runs of this folder included
    recipe: str  # its name
    rate: float = 1e-3
    optimiser: Callable[[nn.Module, float], torch.optim.Optimizer] = adamw
    average: float = 0.999
    save_every_seconds: float = 120.0
    validate_every_seconds: float = 300.0
    threads: int = 0  # 0: torch's own choice
    seed: int = 0  # of the batches
    begun_with: Mapping[str, Any] = field(default_factory=dict)  # what the manifest says of shipped weights


def load_averaged(network: nn.Module, folder: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The averaged weights of a run, how far it came, and with what it was begun."""
    state = torch.load(folder / "checkpoint.pt", map_location="cpu")
    network.load_state_dict(state["averaged"])
    far = {"steps": state["step"], "minutes": round(state["seconds"] / 60, 1)}
    return network, {**far, "begun_with": state.get("begun_with", {})}


def resume(options: Options, learned: Mapping[str, Any], where: torch.device) -> tuple[int, float, Mapping[str, Any]]:
    """Put the run's checkpoint into what has `learned`, where there is one; its steps, seconds, and what it began with.

    Raises InputError where it is damaged, and where it is of another recipe or seed.
    """
    checkpoint = options.folder / "checkpoint.pt"
    if not checkpoint.exists():
        return 0, 0.0, options.begun_with
    try:
        state = dict(torch.load(checkpoint, map_location=where))
    except Exception as error:  # unpickling what is damaged can raise anything
        raise InputError(
            f"expected a checkpoint, could not read {checkpoint} ({error}); take it away or give another --out"
        ) from error
    for name, wanted in (("recipe", options.recipe), ("seed", options.seed)):
        if state.get(name, wanted) != wanted:  # earlier versions kept neither
            raise InputError(
                f"expected {checkpoint} to be of the {name} {wanted}, it is of {state[name]}; go on with that {name}, "
                "or give another --out"
            )
    try:
        for name, each in learned.items():
            each.load_state_dict(state[name])
        return state["step"], state["seconds"], state.get("begun_with", {})
    except (KeyError, RuntimeError, ValueError) as error:
        raise InputError(
            f"expected {checkpoint} to be of the recipe {options.recipe}, it is of another network; give another --out"
        ) from error


def judged(folder: Path, step: int) -> bool:
    """Whether the log tells what validation found after so many steps."""
    log = folder / "log.jsonl"
    entries = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return any(entry["step"] == step and "loss" not in entry for entry in entries)


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def bfloat16_is_fast(where: torch.device) -> bool:
    """Processors without AVX-512 or better only emulate it, at a tenth of float32's speed."""
    return where.type == "cuda" or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


class Averaged:
    """Exponential moving average of a network's weights, with a short memory at the start."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        for mine, new in zip(self.network.parameters(), network.parameters(), strict=True):
            mine.lerp_(new, 1 - decay)
        for kept, counted in zip(self.network.buffers(), network.buffers(), strict=True):
            kept.copy_(counted)  # statistics of normalisation layers are averages already


def train(
    network: nn.Module,
    make: Callable[[np.random.Generator], Batch],
    loss: Callable[[nn.Module, Batch], Tensor],
    validate: Callable[[nn.Module], dict[str, Any]],
    options: Options,
    begin: Callable[[nn.Module, float], None] = lambda network, progress: None,
) -> nn.Module:
    """Train until the budget is used; return the averaged network.

    `make(random)` makes a batch; the n-th batch depends on the seed and n alone, and so does all that is random in the
    n-th step. `begin(network, progress)` is told before each step which share of the budget is used, for training in
    phases. `loss(network, batch)` is called under bfloat16 autocast where that is fast. State is kept in
    `options.folder/checkpoint.pt`: weights, their average, optimiser, recipe, seed, steps and seconds used; a run that
    finds one continues it with the batch that came next. Raises InputError where it cannot.
    """
    torch.set_flush_denormal(True)  # momentum fades to numbers so small that some processors slow down tenfold
    if options.threads:
        torch.set_num_threads(options.threads)
    options.folder.mkdir(parents=True, exist_ok=True)
    checkpoint = options.folder / "checkpoint.pt"
    where = device()
    fast = bfloat16_is_fast(where)
    network = network.to(where, memory_format=torch.channels_last)  # type: ignore[call-overload]
    averaged = Averaged(network, options.average)
    optimiser = options.optimiser(network, options.rate)
    learned: dict[str, Any] = {"network": network, "averaged": averaged.network, "optimiser": optimiser}
    step, used, begun_with = resume(options, learned, where)

    def save() -> None:
        part = checkpoint.with_suffix(".part")
        about = {"recipe": options.recipe, "seed": options.seed, "begun_with": begun_with}
        about |= {"step": step, "seconds": used}
        torch.save({name: each.state_dict() for name, each in learned.items()} | about, part)
        part.replace(checkpoint)

    def log(**entry: Any) -> None:
        line = json.dumps({"step": step, "minutes": round(used / 60, 2), **entry})
        print(line, flush=True)
        with (options.folder / "log.jsonl").open("a") as file:
            file.write(line + "\n")

    budget = options.minutes * 60
    if used >= budget:
        print(f"this run has used its {round(used / 60, 2):g} minutes; give a larger --minutes", flush=True)
        if not judged(options.folder, step):  # it was cut off before that
            log(**validate(averaged.network))
    saved = validated = used
    total, count = 0.0, 0
    clock = time.monotonic()
    batches = data.batches(lambda number: make(np.random.default_rng((options.seed, number))), step)
    with closing(batches):  # else its thread may still be at work when the process ends, which aborts it
        while used < budget:
            progress = used / budget
            rate = options.rate * min(1.0, (step + 1) / 200) * max(0.01, 0.5 * (1 + math.cos(math.pi * progress)))
            for group in optimiser.param_groups:
                group["lr"] = rate
            batch = tuple(tensor.to(where, non_blocking=True) for tensor in next(batches))
            torch.manual_seed(options.seed + (step << 32))
            network.train()
            begin(network, progress)
            with torch.autocast(where.type, torch.bfloat16, enabled=fast):
                value = loss(network, batch)
            optimiser.zero_grad(set_to_none=True)
            value.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            step += 1
            averaged.update(network, step)
            total, count = total + float(value.detach()), count + 1
            now = time.monotonic()
            used, clock = used + now - clock, now
            if used - saved >= options.save_every_seconds or used >= budget:
                save()
                log(loss=round(total / count, 6), rate=rate)
                saved, total, count = used, 0.0, 0
            if used - validated >= options.validate_every_seconds or used >= budget:
                log(**validate(averaged.network))
                validated, clock = used, time.monotonic()  # judging is not training time
    return averaged.network
