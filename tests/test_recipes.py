"""Recipes: they are complete, they parse, they build the architecture they name, and words override them."""

import dataclasses
import json
import re
from pathlib import Path

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from transformers import ResNetConfig, ResNetModel

from modeling_denseclip import DenseCLIPConfig, DenseCLIPForSemanticSegmentation
from tests.tiny import tiny_model
from training import REPOSITORY
from training.data.load import SegmentationData
from training.learning.trainer import DenseCLIPTrainer
from training.options.command_line import parse_train_arguments
from training.options.recipes import load_recipe
from training.train import build_image_processor, build_model, choose_dice_weight, choose_jpeg_decoding


FOLDER = REPOSITORY / "configuration" / "recipes" / "ade20k"
FILES = sorted(FOLDER.glob("*.yaml"))
# The paper's tables: table, mIoU SS and MS, GFLOPs, millions of parameters. The rows of Table 2 that are not here are
# rows of Table 1, as are the two ResNets without language of Table 5.
PAPER = {
    "imagenet_fpn_rn50": (1, 38.6, 40.6, 227.1, 31.0),
    "clip_fpn_rn50": (1, 39.6, 41.6, 248.8, 31.0),
    "denseclip_fpn_rn50": (1, 43.5, 44.7, 269.2, 50.3),
    "imagenet_fpn_rn101": (1, 40.4, 42.3, 304.9, 50.0),
    "clip_fpn_rn101": (1, 42.7, 44.3, 326.6, 50.0),
    "denseclip_fpn_rn101": (1, 45.1, 46.5, 346.3, 67.8),
    "imagenet_fpn_vit_b16": (1, 48.3, 50.9, 1037.4, 100.8),
    "imagenet21k_fpn_vit_b16": (1, 49.1, 50.4, 1037.4, 100.8),
    "clip_fpn_vit_b16": (1, 49.4, 50.3, 1037.4, 100.8),
    "denseclip_fpn_vit_b16": (1, 50.6, 51.3, 1043.1, 105.3),
    "denseclip_language_fpn_rn50": (2, 42.1, None, 269, 46.5),
    "denseclip_pre_model_fpn_rn50": (2, 42.9, None, 368, 116.9),
    "denseclip_imagenet_fpn_rn50": (5, 41.0, 43.0, None, None),
    "denseclip_imagenet_fpn_rn101": (5, 43.0, 45.2, None, None),
    "upernet_swin_tiny": (5, 44.5, 45.8, None, None),
    "upernet_swin_small": (5, 47.6, 49.5, None, None),
    "denseclip_upernet_swin_tiny": (5, 45.4, 46.5, None, None),
    "denseclip_upernet_swin_small": (5, 48.3, 49.7, None, None),
}
FIGURES = ("table", "mean_iou", "mean_iou_multi_scale", "gflops", "parameters_millions")
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# What the rows start from, and the mean that its pictures have had.
WEIGHTS = {
    "clip_fpn_rn50": ("timm/resnet50_clip.openai", None, CLIP_MEAN),
    "clip_fpn_rn101": ("timm/resnet101_clip.openai", None, CLIP_MEAN),
    "clip_fpn_vit_b16": ("openai/clip-vit-base-patch16", None, CLIP_MEAN),
    "imagenet_fpn_rn50": (None, "microsoft/resnet-50", IMAGENET_MEAN),
    "imagenet_fpn_rn101": (None, "microsoft/resnet-101", IMAGENET_MEAN),
    "imagenet_fpn_vit_b16": (None, "facebook/deit-base-patch16-224", IMAGENET_MEAN),
    "imagenet21k_fpn_vit_b16": (None, "google/vit-base-patch16-224-in21k", (0.5, 0.5, 0.5)),
    "upernet_swin_tiny": (None, "microsoft/swin-tiny-patch4-window7-224", IMAGENET_MEAN),
    "upernet_swin_small": (None, "microsoft/swin-small-patch4-window7-224", IMAGENET_MEAN),
}
# The others have the image encoder of a baseline, and a text tower: CLIP's own, or that of its ViT-B/16.
for stem, baseline in {
    "denseclip_fpn_rn50": "clip_fpn_rn50",
    "denseclip_language_fpn_rn50": "clip_fpn_rn50",
    "denseclip_pre_model_fpn_rn50": "clip_fpn_rn50",
    "denseclip_fpn_rn101": "clip_fpn_rn101",
    "denseclip_fpn_vit_b16": "clip_fpn_vit_b16",
    "denseclip_imagenet_fpn_rn50": "imagenet_fpn_rn50",
    "denseclip_imagenet_fpn_rn101": "imagenet_fpn_rn101",
    "denseclip_upernet_swin_tiny": "upernet_swin_tiny",
    "denseclip_upernet_swin_small": "upernet_swin_small",
}.items():
    clip, image, mean = WEIGHTS[baseline]
    WEIGHTS[stem] = (clip or "openai/clip-vit-base-patch16", image, mean)
IS_SWIN = {path.stem: "swin" in path.stem for path in FILES}


def parse(*words):
    return parse_train_arguments([*map(str, words), "--use_cpu", "true", "--report_to", "none"])


def test_every_row_has_its_recipe_its_architecture_and_its_card():
    assert {path.stem for path in FILES} == set(PAPER)
    for stem in PAPER:
        assert (REPOSITORY / "configuration" / "models" / f"{stem}.json").is_file()
        assert (REPOSITORY / "model_cards" / f"{stem}.md").is_file()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_recipe_holds_the_papers_figures_and_names_its_weights(path):
    data, model, training, recipe = parse(path, "--data_dir", "there")
    assert tuple(recipe.paper.get(name) for name in FIGURES) == PAPER[path.stem]
    clip, image, mean = WEIGHTS[path.stem]
    assert (model.clip, model.image, model.pretrained()) == (clip, image, [name for name in (clip, image) if name])
    pretraining = "CLIP" if image is None else "ImageNet-21K" if "21k" in image else "ImageNet-1K"
    assert recipe.paper["pretraining"] == pretraining
    image_processor = build_image_processor(data, model, reduce_labels=True)
    assert tuple(image_processor.image_mean) == mean
    if mean == IMAGENET_MEAN:
        assert tuple(image_processor.image_std) == IMAGENET_STD
    assert Path(training.output_dir).name == path.stem
    assert training.freeze_text_encoder == path.stem.startswith("denseclip")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_training_is_that_of_table_1_or_for_swin_its_own(path):
    data, model, training, recipe = parse(path, "--data_dir", "there")
    assert (data.dataset, data.data_dir, data.long_side, data.max_class_share) == ("ade20k", "there", 2048, 0.75)
    side = 640 if "vit" in path.stem else 512
    assert (data.short_side, data.crop_size, data.scale_range) == (side, [side, side], [0.5, 2.0])
    assert (training.lr_schedule, training.warmup_steps, training.warmup_start_ratio) == ("published_poly", 1500, 1e-6)
    assert (training.max_grad_norm, training.dataloader_drop_last) == (0, True)
    assert (training.adam_beta1, training.adam_beta2, training.adam_epsilon) == (0.9, 0.999, 1e-8)
    if IS_SWIN[path.stem]:
        assert (training.max_steps, training.learning_rate, training.weight_decay) == (160_000, 6e-5, 0.01)
        assert (training.image_encoder_lr_multiplier, training.batch_norm) == (1.0, "local")
        assert training.image_encoder_no_decay == ["norm", "relative_position_bias_table"]
        assert (training.lr_power, training.min_learning_rate) == (1.0, 0.0)
    else:
        assert (training.max_steps, training.learning_rate, training.weight_decay) == (80_000, 1e-4, 1e-4)
        assert (training.image_encoder_lr_multiplier, training.batch_norm) == (0.1, "sync")
        assert training.image_encoder_no_decay == []
        assert (training.lr_power, training.min_learning_rate) == (0.9, 1e-6)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_recipe_names_its_architecture(path):
    config = REPOSITORY / load_recipe(path).model["config"]
    assert (config.stem, config.is_file()) == (path.stem, True)  # how large it is: test_model_configs.py


def shrink(fields: dict) -> dict:
    """A row's architecture with the same parts, and a handful of channels in each."""
    small = {
        "denseclip_resnet": {"embedding_size": 8, "depths": [1, 1, 1, 1], "num_attention_heads": 4, "image_size": 64},
        "clip_vision_model": {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "image_size": 64},
        "vit": {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "image_size": 64},
        "resnet": {"embedding_size": 8, "hidden_sizes": [16, 16, 32, 64], "depths": [1, 1, 1, 1]},
        "swin": {"embed_dim": 8, "depths": [2, 1, 1, 1], "num_heads": [1, 1, 2, 2], "window_size": 2},
    }
    text = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    names = {0: "wall", 1: "sky", 2: "person"}
    return fields | {
        "vision_config": fields["vision_config"] | small[fields["vision_config"]["model_type"]],
        **({"text_config": fields["text_config"] | text, "projection_dim": 16} if fields["use_language"] else {}),
        **{"neck_hidden_size": 8, "decode_head_hidden_size": 8, "auxiliary_head_hidden_size": 8},
        **{"context_decoder_hidden_size": 8, "context_decoder_intermediate_size": 16, "attention_pool_grid_size": 2},
        "id2label": names,
        **({"class_token_ids": [[49406, 320 + id, 49407] for id in names]} if fields["use_language"] else {}),
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_parameter_that_trains_has_a_gradient(path, tmp_path):
    """Otherwise several processes would wait for those that have none: `ddp_find_unused_parameters` is false."""
    training = parse(path, "--output_dir", tmp_path, "--eval_strategy", "no")[2]
    assert training.ddp_find_unused_parameters is False
    fields = shrink(json.loads((REPOSITORY / load_recipe(path).model["config"]).read_text()))
    model = DenseCLIPForSemanticSegmentation(DenseCLIPConfig(**fields)).train()
    trainer = DenseCLIPTrainer(model=model, args=training)
    groups = trainer.parameter_groups()
    assert ("image_encoder_no_decay" in [group["name"] for group in groups]) == IS_SWIN[path.stem]
    assert sum(len(group["params"]) for group in groups) == sum(p.requires_grad for p in model.parameters())
    parts = trainer.loss_function(model(torch.randn(2, 3, 64, 64)), torch.randint(0, 3, (2, 64, 64)))
    assert ("auxiliary" in parts) == IS_SWIN[path.stem]
    sum(parts.values()).backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_hardware_makes_the_batch_of_the_row(path):
    for hardware, processes in (("8gpu", 8), ("1gpu", 1)):
        training = parse(path, "--recipe_hardware", hardware)[2]
        batch = training.per_device_train_batch_size * training.gradient_accumulation_steps * processes
        assert batch == training.recipe_batch_size == (16 if IS_SWIN[path.stem] else 32)
    assert f"configuration/recipes/ade20k/{path.name}" in path.read_text()  # the command in its first lines


@pytest.fixture
def resnet(tmp_path) -> tuple[Path, ResNetModel]:
    """An image encoder's checkpoint, as the Hub has them."""
    torch.manual_seed(0)
    config = ResNetConfig(embedding_size=8, hidden_sizes=[16, 16, 32, 64], depths=[1, 1, 1, 1])
    model = ResNetModel(config)
    model.save_pretrained(tmp_path / "resnet")
    normalization = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    (tmp_path / "resnet" / "preprocessor_config.json").write_text(
        json.dumps({"image_processor_type": "ConvNextImageProcessor", "crop_pct": 0.875, **normalization})
    )
    return tmp_path / "resnet", model


def test_pictures_are_normalised_as_the_image_encoder_had_them(resnet):
    folder, _ = resnet

    def normalization(*words):
        data, model, _, _ = parse("--data_dir", "d", "--output_dir", "o", *words)
        image_processor = build_image_processor(data, model, reduce_labels=False)
        return tuple(image_processor.image_mean), tuple(image_processor.image_std)

    assert normalization()[0] == normalization("--clip", "c")[0] == CLIP_MEAN
    assert normalization("--image", folder) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    given = ("--image_mean", 0.7, 0.8, 0.9, "--image_std", 1, 2, 3)
    assert normalization("--image", folder, *given) == normalization(*given) == ((0.7, 0.8, 0.9), (1, 2, 3))
    (folder / "preprocessor_config.json").write_text('{"do_normalize": true}')
    with pytest.raises(ValueError, match="image_mean.*Give both by --image_mean and --image_std"):
        normalization("--image", folder)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ValueError, match="Give both by --image_mean and --image_std"):
        normalization("--image", folder)


@pytest.mark.parametrize(
    "words, message",
    [
        (["--image_mean", 0.5], "three numbers"),
        (["--image_mean", 0.5, 0.5, 0.5], "belong together"),
        (["--image_mean", 0.5, 0.5, 0.5, "--image_std", 1, 0, 1], "must be positive"),
    ],
)
def test_half_a_normalization_is_refused(words, message):
    with pytest.raises(ValueError, match=message):
        parse("--data_dir", "d", "--output_dir", "o", *words)


def test_training_starts_from_the_image_encoders_own_weights(resnet, tmp_path):
    folder, backbone = resnet
    (tmp_path / "fields.json").write_text(json.dumps({"use_language": False, "neck_hidden_size": 8}))
    words = ("--image", folder, "--config", tmp_path / "fields.json", "--data_dir", "d", "--output_dir", "o")
    _, arguments, _, _ = parse(*words)
    data = SegmentationData("scenes", ["wall", "sky"], None, reduce_labels=False, train=None, validation=None)
    weights = build_model(arguments, data).image_encoder.backbone.state_dict()
    assert len(weights) == len(backbone.state_dict())
    for name, tensor in backbone.state_dict().items():
        assert torch.equal(weights[name], tensor), name


DATA = SegmentationData("scenes", ["wall", "sky"], None, False, None, None, pixels={"training": {0: 990, 1: 10}})


@pytest.mark.parametrize(
    "words, weight",
    [
        (["--data_dir", "d"], 1.0),
        (["--dataset_name", "user/scenes"], 1.0),
        (["OWN.yaml"], 1.0),
        (["--data_dir", "d", "--dice_weight", "0"], 0.0),
        (["--data_dir", "d", "--dice_weight", "0.3"], 0.3),
        (["--data_dir", "d", "--class_weights", "weights.txt"], 0.0),
        (["--data_dir", "d", "--ohem_threshold", "0.7"], 0.0),
        (["--dataset", "ade20k"], 0.0),
        (["PAPER.yaml"], 0.0),
        (["PAPER.yaml", "--max_steps", "5", "--dataset", "folder", "--data_dir", "d"], 0.0),
        (["PAPER.yaml", "--dice_weight", "0.3"], 0.3),
    ],
)
def test_rare_classes_get_a_dice_loss_where_nobody_chose_a_loss(words, weight, tmp_path):
    (tmp_path / "own.yaml").write_text("data:\n  data_dir: d\n")
    files = {
        "OWN.yaml": str(tmp_path / "own.yaml"),
        "PAPER.yaml": str(REPOSITORY / "configuration/recipes/ade20k/denseclip_fpn_rn50.yaml"),
    }
    data_args, _, training_args, _ = parse(*(files.get(word, word) for word in words), "--output_dir", "o")
    said = choose_dice_weight(DATA, data_args, training_args)
    assert training_args.dice_weight == weight
    assert ("'sky' has 1.00% of the labelled pixels. --dice_weight 0 switches it off" in said) == (weight == 1.0)
    even = dataclasses.replace(DATA, pixels={"training": {0: 500, 1: 500}})
    training_args.dice_weight = None
    assert choose_dice_weight(even, data_args, training_args) == "" and training_args.dice_weight == 0.0


@pytest.mark.parametrize(
    "words, decoding",
    [
        (["--data_dir", "d"], "reduced"),
        (["--dataset_name", "user/scenes"], "reduced"),
        (["--dataset", "ade20k", "--dataset_name", "user/scenes"], "reduced"),
        (["OWN.yaml"], "reduced"),
        (["--data_dir", "d", "--jpeg_decoding", "full"], "full"),
        (["--dataset", "ade20k"], "full"),
        (["PAPER.yaml"], "full"),
        (["PAPER.yaml", "--dataset", "folder", "--data_dir", "d"], "full"),
        (["PAPER.yaml", "--jpeg_decoding", "reduced"], "reduced"),
    ],
)
def test_jpegs_are_decoded_as_published_where_the_paper_is_repeated(words, decoding, tmp_path):
    (tmp_path / "own.yaml").write_text("data:\n  data_dir: d\n")
    files = {
        "OWN.yaml": str(tmp_path / "own.yaml"),
        "PAPER.yaml": str(REPOSITORY / "configuration/recipes/ade20k/denseclip_fpn_rn50.yaml"),
    }
    data_args, _, training_args, _ = parse(*(files.get(word, word) for word in words), "--output_dir", "o")
    choose_jpeg_decoding(data_args, training_args)
    assert training_args.jpeg_decoding == decoding


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
        # Accelerate refuses a class that the model does not have.
        classes = {type(module).__name__ for module in tiny_model("vit").modules()}
        assert set(config.fsdp_config["fsdp_transformer_layer_cls_to_wrap"].split(",")) <= classes
        (for_resnet,) = re.findall(r"`--fsdp_transformer_layer_cls_to_wrap (\S+)`", path.read_text())
        assert set(for_resnet.split(",")) <= {type(module).__name__ for module in tiny_model("resnet").modules()}
