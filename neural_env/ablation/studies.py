"""The studies: GameNGen's, on our data, and those of what it leaves open. The first arm is the package's own recipe."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from neural_env.ablation.memory import Remembering
from neural_env.ablation.parts import FineDecoder, OneStep, OwnFrames, TeacherForced
from neural_env.ablation.study import Arm, Change, Study
from neural_env.world.conditioning import ContextNoise, CrossAttention
from neural_env.world.diffusion import EDM
from neural_env.world.model import ModelConfig
from neural_env.world.shortcut import Shortcut
from neural_env.world.velocity import VPrediction


def unet(**changes: Any) -> Change:
    """The same model with other fields of its `UNetConfig`."""

    def change(model: ModelConfig) -> ModelConfig:
        return replace(model, unet=replace(model.unet, **changes))

    return change


def objective(trained: EDM | VPrediction | Shortcut) -> Change:
    """The same model with another objective."""

    def change(model: ModelConfig) -> ModelConfig:
        return replace(model, objective=trained)

    return change


def first(share: float) -> Change:
    """The same model with another share of training where the sampler begins; an EDM one if it is none."""

    def change(model: ModelConfig) -> ModelConfig:
        if isinstance(model.objective, EDM):
            return replace(model, objective=replace(model.objective, first=share))
        return replace(model, objective=EDM(first=share), num_steps=1)

    return change


_EDM, _VELOCITY, _SHORTCUT = objective(EDM()), objective(VPrediction()), objective(Shortcut())
_DROPPED = unet(context_dropout=0.1)

STUDIES: dict[str, Study] = {
    "steps": Study(
        question="How many denoising steps does a frame need?",
        arms=(
            *(Arm(name=f"{n} steps" if n > 1 else "1 step", dials={"num_steps": n}) for n in (1, 2, 4, 8, 16)),
            Arm(name="distilled", parts=(TeacherForced(), OneStep())),
        ),
        whole=True,
        note="Several steps of an EDM world lie on Karras' schedule down to the world's own sigma_last. Where that is "
        "the usual 0.02, the last of 2 or 4 steps finds nothing to decide; `train sampler` chooses better levels",
        paper="25.47 dB at 1 step, 31.91 at 2, 32.58 at 4, 32.55 at 8, 32.44 at 16; distilled to one step 31.10",
    ),
    "level": Study(
        question="How much noise should the past get when the dream runs?",
        arms=tuple(Arm(name=f"{level:g}", dials={"context_noise": level}) for level in (0.0, 0.05, 0.1, 0.2, 0.4)),
        whole=True,
        paper="0 works; the level is a dial",
    ),
    "context": Study(
        question="How many past frames does the denoiser need?",
        arms=tuple(Arm(name=f"{n}", model=unet(context=n)) for n in (4, 1, 2, 8, 16, 32)),
        paper="20.94 dB with 1 frame, 22.03 with 2, 22.26 with 4 and 8, 22.28 with 16, 22.31 with 32, 22.36 with 64",
    ),
    "noise": Study(
        question="Does noise on the past in training keep a dream from drifting?",
        arms=(
            Arm(name="with"),
            Arm(name="without", parts=(TeacherForced(noise=ContextNoise(0.0)),)),
            Arm(name="evenly spread, as GameNGen's", parts=(TeacherForced(noise=ContextNoise(spread="even")),)),
        ),
        paper="without it, quality collapses after 10 to 20 frames",
    ),
    "data": Study(
        question="Whose play should the data be?",
        arms=(Arm(name="agent", player="agent"), Arm(name="random", player="random")),
        players=("agent", "random"),
        paper="after 3 s of autoregression 19.02 dB with the agent's data, 16.84 with random play's",
    ),
    "objective": Study(
        question="Which objective, at few steps?",
        arms=(
            Arm(name="EDM, 1 step", model=_EDM, dials={"num_steps": 1}),
            Arm(name="EDM, 4 steps", model=_EDM, dials={"num_steps": 4}, sampler={"sigma_last": 1.0}),
            Arm(name="v-prediction, 1 step", model=_VELOCITY, dials={"num_steps": 1}),
            Arm(name="v-prediction, 4 steps", model=_VELOCITY, dials={"num_steps": 4}),
            Arm(name="shortcut, 1 step", model=_SHORTCUT, dials={"num_steps": 1}),
            Arm(name="shortcut, 4 steps", model=_SHORTCUT, dials={"num_steps": 4}),
        ),
        note="The last of EDM's 4 steps is at sigma 1, where there is something to decide, and not at 0.02",
        paper="v-prediction, with 4 steps of DDIM",
    ),
    "first": Study(
        question="How much of training should be where the sampler begins, at noise alone?",
        arms=tuple(Arm(name=f"{100 * share:g} %", model=first(share)) for share in (0.5, 0.0, 0.8)),
        note="Beside the share, the distribution itself puts one in thirteen there",
    ),
    "optimiser": Study(
        question="Which optimiser, for as many updates?",
        arms=(Arm(name="AdamW"), Arm(name="Muon", parts=(TeacherForced(optimiser="muon"),))),
        paper="Adafactor",
    ),
    "conditioning": Study(
        question="How should the denoiser be told the actions?",
        arms=(
            Arm(name="AdaGN"),
            Arm(name="cross-attention", model=unet(conditioning=CrossAttention())),
        ),
        paper="cross-attention to action tokens, in the place of the text",
    ),
    "guidance": Study(
        question="What does guidance on the past frames give?",
        arms=(
            Arm(name="no dropout"),
            *(
                Arm(name=f"dropout, weight {weight:g}", model=_DROPPED, dials={"guidance": weight})
                for weight in (1.0, 1.25, 1.5, 2.0)
            ),
        ),
        paper="weight 1.5, on the past alone; larger weights leave artefacts that grow",
    ),
    "rollout": Study(
        question="Does training on own frames keep a dream from drifting?",
        arms=(
            Arm(name="own frames at the end", parts=(TeacherForced(), OwnFrames())),
            Arm(name="as long, on true pasts", parts=(TeacherForced(), TeacherForced(share=0.2, learning_rate=2e-4))),
        ),
        whole=True,
    ),
    "decoder": Study(
        question="What does fine-tuning the decoder give?",
        arms=(Arm(name="as it is"), Arm(name="fine-tuned", parts=(TeacherForced(), FineDecoder()))),
        whole=True,
        paper="it repairs the HUD",
    ),
    "memory": Study(
        question="Does a glimpse of older frames help, 8, 16 and 32 steps back?",
        arms=(
            Arm(name="4 frames"),
            Arm(name="stacked", build=Remembering(ages=(8, 16, 32))),
            Arm(name="pooled", build=Remembering(ages=(8, 16, 32), grid=(4, 5))),
        ),
        paper="64 frames instead of 4 give 0.1 dB",
    ),
}
"""By name."""
