"""`neural-env`: thin verbs over the package's functions."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated

import tyro
from rich.console import Console
from rich.markup import escape

from neural_env.ablation.run import AblateConfig, ablate
from neural_env.bench.run import BenchConfig, bench
from neural_env.checkpoint import CheckpointError
from neural_env.data.cluster import ClusterFailed
from neural_env.data.collect import CollectConfig, collect
from neural_env.data.shards import ShardError
from neural_env.data.store import FetchConfig, fetch
from neural_env.data.tools import (
    CardConfig,
    ExportConfig,
    ImportConfig,
    InfoConfig,
    VerifyConfig,
    card,
    export,
    import_,
    info,
    verify_,
)
from neural_env.data.vizdoom import EngineCrashed
from neural_env.data.workers import WorkersHung
from neural_env.demo import DemoConfig, demo
from neural_env.evaluation.agent import EvaluateAgentConfig, evaluate_agent
from neural_env.evaluation.card import CardConfig as WorldCardConfig
from neural_env.evaluation.card import card as world_card
from neural_env.evaluation.compare import CompareConfig, compare
from neural_env.evaluation.planning import EvaluatePlanningConfig, evaluate_planning
from neural_env.evaluation.run import EvaluateConfig, evaluate
from neural_env.evaluation.transfer_study import StudyConfig, study
from neural_env.evaluation.truth import TruthConfig, evaluate_truth
from neural_env.hub import ReleaseConfig, release
from neural_env.quantise import QuantiseConfig, quantise
from neural_env.tpu import CompilerFailed, TpuReportConfig, tpu_report
from neural_env.training.agent import AgentRun, train_agent
from neural_env.training.dream_agent import DreamAgentRun, train_dream_agent
from neural_env.training.loop import NonFiniteLoss
from neural_env.training.run import (
    AutoencoderRun,
    BundleRun,
    DangerRun,
    DecoderRun,
    DenoiserRun,
    DistillRun,
    OutcomeRun,
    RolloutRun,
    SamplerRun,
    bundle,
    choose_sampler,
    train_autoencoder,
    train_danger,
    train_decoder,
    train_denoiser,
    train_distill,
    train_outcome,
    train_rollout,
)
from neural_env.training.state import TrainingStateError
from neural_env.training.world import WorldRun, make_world

Train = Annotated[
    Annotated[AutoencoderRun, tyro.conf.subcommand("autoencoder")]
    | Annotated[DenoiserRun, tyro.conf.subcommand("denoiser")]
    | Annotated[RolloutRun, tyro.conf.subcommand("rollout")]
    | Annotated[DistillRun, tyro.conf.subcommand("distill")]
    | Annotated[SamplerRun, tyro.conf.subcommand("sampler")]
    | Annotated[DecoderRun, tyro.conf.subcommand("decoder")]
    | Annotated[OutcomeRun, tyro.conf.subcommand("outcome")]
    | Annotated[DangerRun, tyro.conf.subcommand("danger")]
    | Annotated[AgentRun, tyro.conf.subcommand("agent")]
    | Annotated[DreamAgentRun, tyro.conf.subcommand("dream-agent")],
    tyro.conf.OmitArgPrefixes,
]

Evaluate = Annotated[
    Annotated[EvaluateConfig, tyro.conf.subcommand("world")]
    | Annotated[CompareConfig, tyro.conf.subcommand("compare")]
    | Annotated[WorldCardConfig, tyro.conf.subcommand("card")]
    | Annotated[EvaluateAgentConfig, tyro.conf.subcommand("agent")]
    | Annotated[EvaluatePlanningConfig, tyro.conf.subcommand("planning")]
    | Annotated[TruthConfig, tyro.conf.subcommand("truth")],
    tyro.conf.OmitArgPrefixes,
]

Data = Annotated[
    Annotated[InfoConfig, tyro.conf.subcommand("info")]
    | Annotated[VerifyConfig, tyro.conf.subcommand("verify")]
    | Annotated[FetchConfig, tyro.conf.subcommand("fetch")]
    | Annotated[ExportConfig, tyro.conf.subcommand("export")]
    | Annotated[ImportConfig, tyro.conf.subcommand("import")]
    | Annotated[CardConfig, tyro.conf.subcommand("card")],
    tyro.conf.OmitArgPrefixes,
]

_EXPECTED = (
    CheckpointError,
    ClusterFailed,
    CompilerFailed,
    EngineCrashed,
    ImportError,
    NonFiniteLoss,
    ShardError,
    TrainingStateError,
    ValueError,
    WorkersHung,
)


def train(run: Annotated[Train, tyro.conf.arg(name="")]) -> None:
    """Train a stage of a world model, or an agent; interrupted and run again, it goes on."""
    match run:
        case AutoencoderRun():
            train_autoencoder(run)
        case DenoiserRun():
            train_denoiser(run)
        case RolloutRun():
            train_rollout(run)
        case DistillRun():
            train_distill(run)
        case SamplerRun():
            choose_sampler(run)
        case DecoderRun():
            train_decoder(run)
        case OutcomeRun():
            train_outcome(run)
        case DangerRun():
            train_danger(run)
        case AgentRun():
            train_agent(run)
        case DreamAgentRun():
            train_dream_agent(run)


def collect_(config: Annotated[CollectConfig, tyro.conf.arg(name="")]) -> None:
    """Play a scenario, or a game of your own, and record the episodes."""
    collect(config)


def data(config: Annotated[Data, tyro.conf.arg(name="")]) -> None:
    """Look into a dataset, verify, fetch, export or import it."""
    match config:
        case InfoConfig():
            info(config)
        case VerifyConfig():
            verify_(config)
        case FetchConfig():
            fetch(config.url, config.out)
        case ExportConfig():
            export(config)
        case ImportConfig():
            import_(config)
        case CardConfig():
            card(config)


def bundle_(config: Annotated[BundleRun, tyro.conf.arg(name="")]) -> None:
    """Assemble the stages of a run into a checkpoint."""
    bundle(config)


def quantise_(config: Annotated[QuantiseConfig, tyro.conf.arg(name="")]) -> None:
    """Keep a world's weights in 8 bits; what that costs, evaluate compare tells."""
    quantise(config)


def release_(config: Annotated[ReleaseConfig, tyro.conf.arg(name="")]) -> None:
    """Make a folder of a world that can be uploaded to the Hugging Face Hub."""
    release(config)


def evaluate_(config: Annotated[Evaluate, tyro.conf.arg(name="")]) -> None:
    """Score a world against the real game, or an agent in it, on test seeds."""
    match config:
        case CompareConfig():
            compare(config)
        case WorldCardConfig():
            world_card(config)
        case EvaluateConfig():
            evaluate(config)
        case EvaluateAgentConfig():
            evaluate_agent(config)
        case EvaluatePlanningConfig():
            evaluate_planning(config)
        case TruthConfig():
            evaluate_truth(config)


def transfer_(config: Annotated[StudyConfig, tyro.conf.arg(name="")]) -> None:
    """Train agents in a dream only, and score them in the real game; with --sweep or --rounds, several times over."""
    study(config)


def world_(config: Annotated[WorldRun, tyro.conf.arg(name="")]) -> None:
    """Make a world from nothing within a budget of minutes; status 75 says that the slice is over, run it again."""
    if not make_world(config):
        raise SystemExit(75)


def ablate_(config: Annotated[AblateConfig, tyro.conf.arg(name="")]) -> None:
    """Measure what a part of the recipe is worth: a study, its table and its plot."""
    ablate(config)


def demo_(config: Annotated[DemoConfig, tyro.conf.arg(name="")]) -> None:
    """Run a world beside the real game and print how true it is."""
    demo(config)


def bench_(config: Annotated[BenchConfig, tyro.conf.arg(name="")]) -> None:
    """Measure how fast a world is on this machine, beside the real game; two minutes."""
    bench(config)


def tpu_report_(config: Annotated[TpuReportConfig, tyro.conf.arg(name="")]) -> None:
    """Compile worlds for a TPU chip, without one, and print what its compiler expects of them."""
    tpu_report(config)


def main(arguments: list[str] | None = None) -> int:
    """Runs a verb; errors that a user can mend are printed without a traceback and end with status 1."""
    verbs: dict[str, Callable[..., None]] = {
        "collect": collect_,
        "data": data,
        "train": train,
        "bundle": bundle_,
        "quantise": quantise_,
        "release": release_,
        "evaluate": evaluate_,
        "world": world_,
        "ablate": ablate_,
        "transfer": transfer_,
        "demo": demo_,
        "bench": bench_,
        "tpu-report": tpu_report_,
    }
    try:
        tyro.extras.subcommand_cli_from_dict(
            verbs, prog="neural-env", args=arguments, config=(tyro.conf.OmitArgPrefixes,)
        )
    except _EXPECTED as error:
        Console(stderr=True).print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
