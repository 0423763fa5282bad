"""Recipes, schedules, averaged weights, prompts, logs, and a whole tiny run."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from support_amasam import RECIPE, changed, options_for, run_recipe, write_project

from amasam import rundir
from amasam.checkpoint import load_checkpoint, read_info
from amasam.losses import LossConfig
from amasam.model.amasam import ForwardOptions
from amasam.optim import Ema, alignment_strength, lr_factor, peak_lr, steps_per_epoch, total_steps
from amasam.promptmix import PromptKind, draw_prompts, perturbed_mask
from amasam.recipe import config_from_table, load_recipe
from amasam.trainconfig import AlignConfig, OptimConfig, PromptConfig, TrainConfig
from amasam.traindata import load_training_data
from amasam.trainlog import TrainLog, read_log
from amasam.trainrun import prepare_run
from amasam.trainstep import forward_losses, gradient_norms, prompt_in
from wsipipe.errors import CheckpointError, ModelError, OutputError, UsageError

WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    write_project(folder)
    return folder


@pytest.fixture(scope="module")
def finished(project: Path) -> Path:
    run_recipe(load_recipe(project / "recipe.toml"), project, project / "finished")
    return project / "finished"


def train_lines(run: Path) -> list[dict[str, float]]:
    return [line for line in read_log(run / "log.jsonl") if line["kind"] == "train"]


# Recipes


@pytest.mark.parametrize("path", sorted(WORKFLOWS.glob("*.toml")), ids=lambda path: path.name)
def test_every_shipped_recipe_is_valid(path: Path) -> None:
    assert isinstance(load_recipe(path), TrainConfig)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps = 3", "unknown key 'steps'"),
        ("[optim]\nlearning_rate = 1", "unknown key 'learning_rate'"),
        ('seed = "one"', "must be int"),
        ("seed = true", "must be int"),
        ('[optim]\nprecision = "fp8"', "must be one of 'fp32', 'bf16'"),
        ("[optim]\nlr = -1.0", "optim.lr must be > 0"),
        ('[data]\nauxiliary = "tnbc"', "must be tuple"),
        ("seed = ", "not TOML"),
        ('extends = "recipe.toml"', "extends itself"),
        ('stage = "pretrain"', "without alignment"),
        ('loss = { fine = "dice" }', "fine loss must be"),
    ],
)
def test_a_wrong_recipe_is_one_clear_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "recipe.toml").write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        load_recipe(tmp_path / "recipe.toml")
    assert "recipe.toml" in str(caught.value)


def test_a_recipe_states_only_what_differs_from_its_base(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text("seed = 3\n[optim]\nlr = 0.5\nbatch = 2\n")
    (tmp_path / "top.toml").write_text('extends = "base.toml"\n[optim]\nlr = 0.25\n')
    config = load_recipe(tmp_path / "top.toml")
    assert (config.seed, config.optim.lr, config.optim.batch) == (3, 0.25, 2)


def test_the_recipe_key_ignores_logging_and_workers_but_no_learning_rate() -> None:
    config = TrainConfig()
    same = changed(config, {"watch": {"log_every": 7}, "data": {"workers": 5}})
    assert rundir.recipe_key(same) == rundir.recipe_key(config)
    assert rundir.recipe_key(changed(config, {"optim": {"lr": 2e-3}})) != rundir.recipe_key(config)


def test_an_option_at_its_default_leaves_the_recipe_key_alone() -> None:
    assert rundir.recipe_key(TrainConfig()) == hashlib.sha256(b"{}").hexdigest()
    assert rundir.recipe_key(changed(TrainConfig(), {"data": {"split": "patient"}})) == rundir.recipe_key(TrainConfig())
    assert rundir.recipe_key(changed(TrainConfig(), {"data": {"split": "random"}})) != rundir.recipe_key(TrainConfig())


# Schedules


def test_the_paper_learning_rate_falls_with_the_images_and_per_epoch() -> None:
    config = OptimConfig(optimiser="adam", lr=2e-4, lr_images=40, schedule="exponential", warmup=0, batch=2)
    assert peak_lr(config, 126) == pytest.approx(6.35e-5, rel=1e-3)  # spec section 6
    assert steps_per_epoch(config, 126) == 63
    assert total_steps(config, 126) == 30 * 63
    last = lr_factor(config, 30 * 63 - 1, steps=30 * 63, epoch_steps=63)
    assert last == pytest.approx(0.557, abs=5e-4)  # 0.98 ** 29


def test_cosine_rises_from_near_zero_to_one_and_ends_at_a_hundredth() -> None:
    config = OptimConfig(steps=100, warmup=0.1)
    factors = [lr_factor(config, step, steps=100, epoch_steps=10) for step in range(101)]
    assert factors[:10] == sorted(factors[:10])
    assert max(factors) == factors[10] == 1
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[100] == pytest.approx(0.01)


def test_the_dann_ramp_starts_at_zero() -> None:
    config = AlignConfig(strength=0.5, ramp="dann")
    assert alignment_strength(config, 0) == 0
    assert alignment_strength(config, 1) == pytest.approx(0.5, abs=1e-4)
    assert alignment_strength(AlignConfig(strength=0.5), 0) == 0.5


# Averaged weights


def test_averaged_weights_follow_slowly_and_swap_without_loss() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(1, 1, bias=False), torch.nn.BatchNorm1d(1))
    ema = Ema(model, 0.9)
    with torch.no_grad():
        model[0].weight.fill_(1.0)
    before = ema.shadow["0.weight"].item()
    ema.update()
    assert ema.shadow["0.weight"].item() == pytest.approx(before + 0.9 * (1 - before))  # first decay: 1 / 10
    for _ in range(200):
        ema.update()
    with ema.swapped():
        assert model[0].weight.item() == pytest.approx(1.0, abs=1e-4)
        assert model[0].weight.item() != 1.0
    assert model[0].weight.item() == 1.0
    assert "1.running_var" in ema.shadow


def test_frozen_weights_are_not_averaged() -> None:
    model = torch.nn.Linear(2, 2)
    model.weight.requires_grad_(requires_grad=False)
    assert set(Ema(model, 0.9).shadow) == {"bias"}


# Prompts


def two_nuclei() -> torch.Tensor:
    labels = torch.zeros(1, 32, 32, dtype=torch.int32)
    labels[0, 4:12, 4:12] = 5
    labels[0, 20:28, 16:28] = 9
    return labels


def test_a_subset_prompt_shows_only_nuclei_that_are_in_its_target() -> None:
    config = PromptConfig(self_weight=0, subset=1)
    some_points = False
    for seed in range(40):
        draw = draw_prompts(two_nuclei(), config, torch.Generator().manual_seed(seed))
        left_out = ~draw.is_target[0, 0]
        assert 0 < left_out.sum() < (two_nuclei() > 0).sum()
        assert not (torch.nn.functional.avg_pool2d(left_out[None, None].float(), 4) == 1)[draw.prob > 0.99].any()
        for (x, y), kind in zip(draw.points[0].tolist(), draw.point_labels[0].tolist(), strict=True):
            some_points = some_points or kind == 1
            assert kind == -1 or (two_nuclei()[0, int(y), int(x)] > 0 and not left_out[int(y), int(x)])
    assert some_points


def test_other_prompts_aim_at_all_nuclei() -> None:
    config = PromptConfig(self_weight=1, truth=1, none=1)
    draw = draw_prompts(two_nuclei().expand(30, -1, -1), config, torch.Generator().manual_seed(0))
    assert draw.is_target.all()
    assert set(draw.kind.tolist()) == {PromptKind.SELF, PromptKind.TRUTH, PromptKind.NONE}
    assert (draw.prob[draw.kind != PromptKind.TRUTH] == 0).all()


def test_patches_without_nuclei_can_be_prompted() -> None:
    draw = draw_prompts(torch.zeros(4, 32, 32, dtype=torch.int32), PromptConfig(subset=1), torch.Generator())
    assert draw.is_target.all()
    assert (draw.prob == 0).all()


def test_a_perturbed_mask_stays_near_the_truth_without_blobs() -> None:
    mask = two_nuclei()[0] > 0
    for seed in range(10):
        seen = perturbed_mask(mask, torch.Generator().manual_seed(seed), blobs=False)
        assert seen.shape == (1, 8, 8)
        assert 0 <= seen.min() <= seen.max() <= 1
        assert seen[0, 4, 1] == 0  # far from both


def test_prompts_come_in_the_values_that_the_model_takes() -> None:
    prob = torch.tensor([0.0, 0.4, 0.6, 1.0])
    assert prompt_in(prob, "binary").tolist() == [0, 0, 1, 1]
    assert prompt_in(prob, "prob") is prob
    assert torch.sigmoid(prompt_in(prob, "logit")).tolist() == pytest.approx([0.02, 0.4, 0.6, 0.98])


def test_a_subset_changes_the_fine_loss_and_not_the_coarse_one(project: Path, tmp_path: Path) -> None:
    config = changed(load_recipe(project / "recipe.toml"), {"prompt": {"self_weight": 0, "truth": 0, "none": 0}})
    run = prepare_run(config, tmp_path / "run", options_for(project))
    batch = run.sampler.batch(0)
    draw = draw_prompts(batch.labels, config.prompt, torch.Generator().manual_seed(1))
    assert not draw.is_target.all()
    losses, output = forward_losses(run.model, batch, draw, ForwardOptions(), run.settings)
    whole = torch.nn.functional.binary_cross_entropy_with_logits(output.coarse, nearest_quarter(batch.foreground))
    assert losses.coarse.item() == pytest.approx(whole.item(), rel=1e-5)
    parts = losses.fine + losses.coarse + 0.4 * losses.dense + 2 * torch.stack(losses.maps).mean()
    assert losses.total.item() == pytest.approx(parts.item(), rel=1e-5)
    norms = gradient_norms(losses, output.features, LossConfig())
    assert set(norms) == {"grad_fine", "grad_coarse", "grad_maps"}
    assert all(norm > 0 for norm in norms.values())


def nearest_quarter(mask: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.interpolate(mask.float(), scale_factor=0.25, mode="nearest")


# A run


def test_a_run_leaves_everything_behind(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    files = {"run.json", "log.jsonl", "state.pt", "best.safetensors", "last.safetensors"}
    assert names == files | {"curves.png", "patches.png", "validation.png"}
    record = json.loads((finished / "run.json").read_text())
    assert record["steps"] == 6
    assert record["data"]["training"]["drawn"]["patients"] == ["drawn_01", "drawn_02"]
    assert record["data"]["validation"]["images"] == ["drawn/drawn_00"]
    assert len(record["data"]["training"]["other"]["sha256"]) == 64


def test_the_log_names_every_term(finished: Path) -> None:
    train = train_lines(finished)
    assert [line["step"] for line in train] == [1, 2, 3, 4, 5, 6]
    assert {"loss", "fine", "coarse", "dense", "distance", "boundary", "lr", "grad_norm"} <= set(train[0])
    assert {"grad_fine", "grad_coarse", "grad_maps"} <= set(train[1])
    assert {"dsc", "aji", "pq"} <= set(
        next(line for line in read_log(finished / "log.jsonl") if line["kind"] != "train")
    )


def test_the_exported_weights_are_the_averaged_ones(finished: Path) -> None:
    state = torch.load(finished / "state.pt", weights_only=True)
    model, info = load_checkpoint(finished / "last.safetensors")
    average = state["ema"]["shadow"]
    assert all(torch.equal(value, average[name]) for name, value in model.named_parameters())
    assert info.facts.training["post"]["min_area_um2"] == 4.0
    assert [row["name"] for row in info.facts.data] == ["drawn", "other"]
    assert "drawn" in read_info(finished / "best.safetensors").facts.licence


def test_losses_fall_in_a_few_steps(project: Path) -> None:
    config = changed(load_recipe(project / "recipe.toml"), {"optim": {"steps": 25}, "watch": {"validate_every": 0}})
    run = run_recipe(config, project, project / "falls")
    losses = [line["loss"] for line in train_lines(project / "falls")]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    assert run.progress.step == 25


def test_ama_trains_only_what_the_paper_trains(project: Path, finished: Path) -> None:
    table = {
        "stage": "ama",
        "trainable": "ama",
        "init": str(finished / "last.safetensors"),
        "model": {"adapters": True},
        "align": {"align": "cgrl"},
        "optim": {"steps": 3, "accumulate": 2},
        "watch": {"validate_every": 0},
    }
    config = changed(load_recipe(project / "recipe.toml"), table)
    run = prepare_run(config, project / "ama", options_for(project))
    frozen = {name: p.detach().clone() for name, p in run.model.named_parameters() if not p.requires_grad}
    assert any(name.startswith("image_encoder.") for name in frozen)
    assert any(name.startswith("mask_decoder.") for name in frozen)
    run = run_recipe(config, project, project / "ama")
    now = dict(run.model.named_parameters())
    assert all(torch.equal(now[name], value) for name, value in frozen.items())
    line = train_lines(project / "ama")[-1]
    assert line["domain"] > 0
    assert {"accuracy_primary", "accuracy_auxiliary"} <= set(line)


def test_the_checkpoint_to_start_from_must_be_of_that_model(project: Path, finished: Path) -> None:
    config = changed(
        load_recipe(project / "recipe.toml"),
        {"init": str(finished / "last.safetensors"), "model": {"channels": [8, 12, 16, 16]}},
    )
    with pytest.raises(CheckpointError, match="of another model"):
        prepare_run(config, project / "wrong", options_for(project))


def test_a_folder_with_a_run_is_not_reused_against_the_users_will(project: Path, finished: Path) -> None:
    config = load_recipe(project / "recipe.toml")
    with pytest.raises(OutputError, match="holds a training run"):
        prepare_run(config, finished, options_for(project, resume="never"))
    with pytest.raises(CheckpointError, match="another recipe"):
        prepare_run(changed(config, {"seed": 1}), finished, options_for(project))


def test_a_set_without_description_is_named(project: Path, tmp_path: Path) -> None:
    config = changed(load_recipe(project / "recipe.toml"), {"data": {"primary": "nowhere"}})
    with pytest.raises(UsageError, match=r"'nowhere'.*drawn, other"):
        prepare_run(config, tmp_path / "run", options_for(project))


def test_the_random_split_crosses_the_held_out_patients_as_the_seed_says(project: Path) -> None:
    def trained(split: str, seed: int) -> list[list[str]]:
        table = {"data": {"split": split}, "seed": seed}
        config = changed(load_recipe(project / "recipe.toml"), table)
        data = load_training_data(config.data, project / "data", project, seed=config.seed)
        return [[sample.name for sample in part.samples] for part in data.sets]

    assert trained("patient", 0)[0] == trained("patient", 1)[0] == ["drawn_01", "drawn_02"]
    drawn = [trained("random", seed) for seed in range(8)]
    assert drawn == [trained("random", seed) for seed in range(8)]
    assert all(len(names) == 2 for run in drawn for names in run)  # 80 % of three images
    assert any("drawn_00" in run[0] for run in drawn)


def test_a_loss_that_is_not_finite_ends_the_run(project: Path, tmp_path: Path) -> None:
    config = changed(load_recipe(project / "recipe.toml"), {"optim": {"lr": 1e30, "clip": 0.0, "warmup": 0.0}})
    with pytest.raises(ModelError, match="loss is"):
        run_recipe(config, project, tmp_path / "run")


def test_bf16_trains_on_the_cpu(project: Path, tmp_path: Path) -> None:
    table = {"optim": {"precision": "bf16", "channels_last": True, "steps": 2}, "watch": {"validate_every": 0}}
    run_recipe(changed(load_recipe(project / "recipe.toml"), table), project, tmp_path / "run")
    assert 0 < train_lines(tmp_path / "run")[-1]["loss"] < 10


# The log


def test_a_resumed_log_forgets_what_was_not_saved(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = TrainLog(path, keep_until=0)
    for step in (1, 2, 3):
        log.write("train", step, {"loss": float("nan") if step == 1 else 0.5})
    log.close()
    with path.open("a") as file:
        file.write('{"kind": "train", "st')
    assert [line["loss"] for line in read_log(path)] == [None, 0.5, 0.5]
    TrainLog(path, keep_until=2).close()
    assert [line["step"] for line in read_log(path)] == [1, 2]


def test_a_damaged_log_is_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('nonsense\n{"kind": "train", "step": 1}\n')
    with pytest.raises(OutputError, match="line 1"):
        read_log(tmp_path / "log.jsonl")


def test_the_test_recipe_is_read_as_written() -> None:
    import tomllib

    config = config_from_table(TrainConfig, tomllib.loads(RECIPE), "RECIPE")
    assert config.model == {"adapters": False}
    assert config.data.auxiliary == ("other",)
