"""The card beside a dataset: what a stranger must know before using it."""

from __future__ import annotations

from pathlib import Path

from neural_env.data.events import EVENTS
from neural_env.data.shards import Dataset, Manifest, write_whole
from neural_env.data.summary import Share, Spread, Summary, summary_of
from neural_env.data.vizdoom import SCENARIOS
from neural_env.data.wads import BUNDLED

CARD = "CARD.md"


def write_card(folder: Path) -> Path:
    """Write `CARD.md` of the dataset in `folder`, unless it says the same already; the path.

    Raises `ShardError` for a dataset that can't be read and `ValueError` for one without episodes.
    """
    dataset = Dataset.open(folder, verify=False, partial=True)
    content = card_of(dataset).encode()
    path = folder / CARD
    if not path.exists() or path.read_bytes() != content:
        write_whole(path, content)
    return path


def card_of(dataset: Dataset) -> str:
    """The card, in Markdown: a function of the dataset alone."""
    manifest, summary = dataset.manifest, summary_of(dataset)
    parts = [_head(manifest), _sizes(summary), _players(summary), _actions(summary), _events(summary), _use(manifest)]
    return "\n\n".join(parts) + "\n"


def _head(m: Manifest) -> str:
    height, width = m.resolution
    made = f"Made with neural-env {m.code_version}" + (f":\n\n```\n{m.command}\n```" if m.command else ".")
    return f"""# {m.scenario}

Episodes of `{m.scenario}` with every frame, action, reward and end: RGB frames of {width}x{height} pixels,
lossless; each action is held for {m.frame_skip} tics (1/35 s each).

| | |
|---|---|
| players | {m.policy} |
| variables, which an agent may read | {_names(m.variable_names)} |
| signals, which it may not | {_names(m.signal_names)} |
| longest episode, steps | {m.max_episode_steps or "no limit"} |
| schema | {m.schema} |

{made}"""


def _names(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "none"


def _sizes(summary: Summary) -> str:
    rows = [(split, size) for split, size in summary.sizes.items()] + [("all", summary.total)]
    lines = [f"| {name} | {s.episodes} | {s.frames} | {s.transitions} | {s.bytes / 1e6:.1f} |" for name, s in rows]
    return f"""## Size

| split | episodes | frames | transitions | MB |
|---|---|---|---|---|
{_lines(lines)}

{summary.bytes_per_frame:.0f} bytes a frame on disk. The split follows from an episode's seed alone: seeds that end in 0
are test, in 1 validation, all others train; so no seed is in two splits of any dataset."""


def _players(summary: Summary) -> str:
    lines = [_player(share) for share in summary.policies]
    return f"""## Who played, and how well

| policy | episodes | transitions | versions | skill | return |
|---|---|---|---|---|---|
{_lines(lines)}

Version: updates that the policy has had. Skill: its mean return over the episodes before, lowest to highest.
Return over all episodes: {_spread(summary.returns)}. Steps of an episode: {_spread(summary.lengths)}. The game
itself ended {summary.terminated:.1%} of the episodes; the others were cut off."""


def _player(share: Share) -> str:
    skills = "unknown" if share.skills is None else f"{share.skills[0]:.1f} to {share.skills[1]:.1f}"
    versions = f"{share.versions[0]} to {share.versions[1]}"
    returns = _spread(share.returns)
    return f"| {share.policy} | {share.episodes} | {share.transitions} | {versions} | {skills} | {returns} |"


def _spread(spread: Spread) -> str:
    return f"{spread.mean:.1f} ± {spread.std:.1f} ({spread.min:.1f} to {spread.max:.1f})"


def _actions(summary: Summary) -> str:
    lines = [f"| {i} | {name} | {share:.1%} |" for i, (name, share) in enumerate(summary.actions.items())]
    return f"## Actions\n\n| | action | share |\n|---|---|---|\n{_lines(lines)}"


def _events(summary: Summary) -> str:
    thousands = summary.total.transitions / 1000
    lines = [f"| {name} | {summary.events[name]} | {summary.events[name] / thousands:.2f} |" for name in EVENTS]
    return f"## Events\n\n| event | transitions | per 1000 |\n|---|---|---|\n{_lines(lines)}"


def _use(m: Manifest) -> str:
    return f"""## Use

```python
from neural_env.data.shards import Dataset

dataset = Dataset.open("path/to/this/folder")  # compares every hash
for episode in dataset.episodes("train"):
    print(episode.seed, episode.frames.shape, episode.actions.shape, episode.rewards.sum())
```

## Licence

{_licence(m.scenario)}"""


def _licence(scenario: str) -> str:
    if scenario in SCENARIOS or scenario.split(":")[0] in BUNDLED:
        return "The frames show the art of Freedoom, which is under the 3-clause BSD licence."
    return f"The frames show the art of `{scenario}`: its owner's licence applies to them."


def _lines(lines: list[str]) -> str:
    return "\n".join(lines)
