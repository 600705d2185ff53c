"""Recipes: they are complete, they parse, they build the architecture they name, and words override them."""

from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file

from tests.test_model_configs import PUBLISHED_MILLIONS, build_on_meta
from training.command_line import parse_train_arguments
from training.recipes import REPOSITORY, load_recipe


FOLDER = REPOSITORY / "configuration" / "recipes" / "ade20k"
FILES = sorted(FOLDER.glob("*.yaml"))
# What the published configurations say, and the paper's Table 1: mIoU SS and MS.
PAPER = {
    "clip_fpn_rn50": (39.6, 41.6),
    "denseclip_fpn_rn50": (43.5, 44.7),
    "clip_fpn_rn101": (42.7, 44.3),
    "denseclip_fpn_rn101": (45.1, 46.5),
    "clip_fpn_vit_b16": (49.4, 50.3),
    "denseclip_fpn_vit_b16": (50.6, 51.3),
}


def parse(*words):
    return parse_train_arguments([*map(str, words), "--use_cpu", "true", "--report_to", "none"])


def test_every_row_has_its_recipe():
    assert {path.stem for path in FILES} == set(PAPER)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_recipe_is_the_published_one(path):
    data, model, training, recipe = parse(path, "--data_dir", "there")
    assert (recipe.paper["mean_iou"], recipe.paper["mean_iou_multi_scale"]) == PAPER[path.stem]
    assert (data.dataset, data.data_dir, data.long_side, data.max_class_share) == ("ade20k", "there", 2048, 0.75)
    side = 640 if "vit" in path.stem else 512
    assert (data.short_side, data.crop_size, data.scale_range) == (side, [side, side], [0.5, 2.0])
    assert training.max_steps == 80_000 and training.warmup_steps == 1500
    assert (training.learning_rate, training.weight_decay, training.max_grad_norm) == (1e-4, 1e-4, 0)
    assert (training.image_encoder_lr_multiplier, training.batch_norm) == (0.1, "sync")
    assert training.freeze_text_encoder == path.stem.startswith("denseclip")
    assert (training.lr_schedule, training.lr_power, training.min_learning_rate) == ("published_poly", 0.9, 1e-6)
    assert (training.warmup_start_ratio, training.dataloader_drop_last) == (1e-6, True)
    assert (training.adam_beta1, training.adam_beta2, training.adam_epsilon) == (0.9, 0.999, 1e-8)
    assert Path(training.output_dir).name == path.stem


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_recipe_names_its_architecture_and_that_is_as_large_as_published(path):
    recipe = load_recipe(path)
    config = REPOSITORY / recipe.model["config"]
    assert config.stem == path.stem
    parameters = sum(
        parameter.numel()
        for name, parameter in build_on_meta(config).named_parameters()
        if not name.startswith(("text_encoder.", "text_projection."))
    )
    assert f"{parameters / 1e6:.3f}" == f"{PUBLISHED_MILLIONS[path.stem]:.3f}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_hardware_makes_the_batch_of_32(path):
    for hardware, processes in (("8gpu", 8), ("1gpu", 1)):
        training = parse(path, "--recipe_hardware", hardware)[2]
        batch = training.per_device_train_batch_size * training.gradient_accumulation_steps * processes
        assert batch == training.recipe_batch_size == 32
    assert f"configuration/recipes/ade20k/{path.name}" in path.read_text()  # the command in its first lines


def test_words_override_the_recipe():
    data, model, training, _ = parse(
        FILES[0], "--max_steps", 7, "--crop_size", 64, "--clip", "none", "--image_encoder_lr_multiplier", 0.5
    )
    assert (training.max_steps, data.crop_size, model.clip) == (7, [64], None)
    assert training.image_encoder_lr_multiplier == 0.5


def test_recipe_is_followed_unless_words_change_what_comes_out():
    assert parse(FILES[0], "--output_dir", "o", "--data-dir=d", "--recipe_hardware", "1gpu")[3].name == FILES[0].stem
    assert parse(FILES[0], "--learning_rate", 2e-4)[3] is None
    assert parse(FILES[0], "--bf16", "true")[3] is None


GOOD = {"training": {"output_dir": "x", "learning_rate": 1.0e-4}, "data": {"data_dir": "d"}}


@pytest.mark.parametrize(
    "change, message",
    [
        ({"training": {"output_dir": "x", "learning_rat": 0.1}}, "'learning_rat'; did you mean 'learning_rate'"),
        ({"data": {"crop": 3}}, "unknown key in 'data'"),
        ({"trainig": {}}, "unknown section: 'trainig'; did you mean 'training'"),
        ({"paper": {"miou": 3}}, "unknown key in 'paper'"),
        ({"hardware": {"1gpu": {"batch": 3}}}, "unknown key in 'hardware: 1gpu'"),
        ({"training": "fast"}, "must be a mapping"),
    ],
)
def test_unknown_keys_are_errors(tmp_path, change, message):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({**GOOD, **change}))
    with pytest.raises(ValueError, match=message):
        load_recipe(path)


@pytest.mark.parametrize("text, message", [("a: [", "no valid YAML"), ("- a", "holds a list")])
def test_what_is_no_mapping_is_refused(tmp_path, text, message):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_recipe(path)


def test_number_that_yaml_takes_for_a_string_is_refused(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("training:\n  learning_rate: 1e-4\n")
    with pytest.raises(ValueError, match=r"learning_rate = 1e-4 as a string.*1.0e-4"):
        load_recipe(path)


def test_hardware_needs_a_recipe_that_names_it(tmp_path):
    with pytest.raises(ValueError, match="name RECIPE.yaml first"):
        parse("--data_dir", "d", "--output_dir", tmp_path, "--recipe_hardware", "1gpu")
    with pytest.raises(ValueError, match="'2gpu'; it names 8gpu, 1gpu"):
        parse(FILES[0], "--recipe_hardware", "2gpu")


LAUNCH_FILES = sorted((REPOSITORY / "configuration" / "accelerate").glob("*.yaml"))


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda path: path.stem)
def test_launch_configurations_are_accelerates(path):
    config = load_config_from_file(str(path))
    assert config.num_processes == 8
    if path.stem.startswith("fsdp"):
        from modeling_denseclip import modeling_denseclip, modeling_denseclip_resnet

        for name in config.fsdp_config["fsdp_transformer_layer_cls_to_wrap"].split(","):
            assert any(hasattr(module, name) for module in (modeling_denseclip, modeling_denseclip_resnet)), name
