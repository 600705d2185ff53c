"""LoRA on the image encoder: what trains, what is saved, how a run goes on; and peft used directly."""

import json
import sys

import PIL.Image
import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPConfig, CLIPModel, ResNetConfig, SwinConfig, pipeline

from modeling_denseclip import DenseCLIPForSemanticSegmentation
from tests.tiny import TINY_CLASS_NAMES, make_tiny_tokenizer, save_tiny_dataset, tiny_model
from training.learning.adapters import adapted_layers, add_lora, load_with_adapter, lora_targets, merged_state_dict
from training.learning.optimization import build_parameter_groups, freeze_text_encoder
from training.learning.trainer import DenseCLIPTrainer
from training.options.arguments import DenseCLIPTrainingArguments
from training.train import main


peft = pytest.importorskip("peft")

SMALL = {
    "context_decoder_hidden_size": 32,
    "context_decoder_num_hidden_layers": 1,
    "context_decoder_num_attention_heads": 4,
    "neck_hidden_size": 16,
    "decode_head_hidden_size": 16,
    "drop_path_rate": 0.3,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two CLIPs of small size, named `clip0` and `clip1`, and a data set."""
    folder = tmp_path_factory.mktemp("adapters")
    tokenizer = make_tiny_tokenizer()
    special = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4}
    config = CLIPConfig(
        text_config=tower | special | {"vocab_size": len(tokenizer), "max_position_embeddings": 40},
        vision_config=tower | {"image_size": 64, "patch_size": 16},
        projection_dim=32,
    )
    for seed in (0, 1):
        torch.manual_seed(seed)
        CLIPModel(config).save_pretrained(folder / f"clip{seed}")
        tokenizer.save_pretrained(folder / f"clip{seed}")
    (folder / "model.json").write_text(json.dumps(SMALL))
    save_tiny_dataset(folder, blocks=(4, 4), training=4, validation=1)
    return folder


def train(folder, name, *extra, clip="clip0", lora=("--lora_rank", "2")):
    words = (
        f"--data_dir {folder} --config {folder}/model.json --clip {folder}/{clip} --output_dir {folder}/{name}"
        " --short_side 64 --long_side 128 --crop_size 64 --max_steps 4 --per_device_train_batch_size 1"
        " --learning_rate 1e-2 --save_strategy steps --save_steps 2 --preprocessing_num_workers 1 --use_cpu true"
        " --report_to none --disable_tqdm true --num_sample_images 0 --logging_steps 1"
    )
    return main([*words.split(), *lora, *extra])


@pytest.fixture(scope="module")
def averaged_run(folder):
    return train(folder, "averaged", "--ema_decay", "0.7")


@pytest.fixture
def start(folder):
    return DenseCLIPForSemanticSegmentation.from_clip_pretrained(folder / "clip0", TINY_CLASS_NAMES, **SMALL)


def give_updates(model):
    """Adapters start at zero, where nothing of them can be seen."""
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


# ---------------------------------------------------------------------------------------------------- which weights


def test_targets_of_clips_towers():
    attention = {f"image_encoder.vision_model.encoder.layers.{layer}.self_attn." for layer in range(4)}
    expected = {part + f"{name}_proj" for part in attention for name in "qkv"} | {
        part + "out_proj" for part in attention
    }
    assert set(lora_targets(tiny_model("vit"))) == expected
    targets = lora_targets(tiny_model("resnet"))
    # Stem; three in each of five blocks, and a shortcut at the head of each stage; the attention pool.
    assert len(targets) == len(set(targets)) == 3 + 5 * 3 + 4 + 4
    without_language = lora_targets(tiny_model("resnet", use_language=False))
    assert set(targets) - set(without_language) == {
        f"image_encoder.attention_pool.{name}_proj" for name in ("q", "k", "v", "out")
    }


def test_targets_of_other_backbones():
    swin = SwinConfig(embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1], window_size=4, image_size=64)
    resnet = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16, 16, 16], depths=[1, 1, 1, 1], layer_type="basic")
    for vision_config, kind in ((swin, torch.nn.Linear), (resnet, torch.nn.Conv2d)):
        model = tiny_model("resnet", vision_config=vision_config)
        targets = lora_targets(model)
        assert len(targets) > 8 and all(isinstance(model.get_submodule(name), kind) for name in targets)
        # The attention pool is new: it trains itself.
        assert all(name.startswith("image_encoder.backbone.") for name in targets)
        add_lora(model, 2)
        assert set(adapted_layers(model)) == set(targets)
        assert all(parameter.requires_grad for parameter in model.image_encoder.attention_pool.parameters())


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_only_adapters_and_what_is_new_train(kind):
    model = tiny_model(kind).train()
    new = {name for name, _ in model.named_parameters() if not name.startswith("image_encoder.")}
    new |= {name for name, _ in model.named_parameters() if ".pyramid." in name}
    frozen_text = {name for name in new if name.startswith(("text_encoder.", "text_projection."))}
    freeze_text_encoder(model)
    before = model(torch.zeros(1, 3, 64, 64)).logits.shape
    add_lora(model, 2)
    assert model(torch.zeros(1, 3, 64, 64)).logits.shape == before
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    adapters = {name for name in trained if ".lora_" in name}
    assert trained - adapters == new - frozen_text and len(adapters) == 2 * len(lora_targets(tiny_model(kind)))
    # Adapters are new: they learn as fast as the head, not as slowly as pretrained weights.
    groups = {group["name"]: group for group in build_parameter_groups(model, 1e-3, 1e-2, 0.1)}
    assert groups["lora"]["lr"] == 1e-3 and len(groups["lora"]["params"]) == len(adapters)
    assert ("image_encoder" in groups) == (kind == "vit")  # its pyramid


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_merged_weights_give_what_adapters_give(kind):
    model = tiny_model(kind).eval()
    pixel_values = torch.rand(1, 3, 64, 96)
    before = model(pixel_values).logits
    add_lora(model, 2, alpha=6)
    assert torch.equal(model(pixel_values).logits, before)
    after = give_updates(model)(pixel_values).logits
    assert (after - before).abs().max() > 1e-3
    plain = tiny_model(kind, seed=1).eval()
    plain.load_state_dict(merged_state_dict(model))
    torch.testing.assert_close(plain(pixel_values).logits, after, rtol=1e-4, atol=1e-5)
    # By hand: alpha / rank times the product.
    name = lora_targets(plain)[-1]
    layer = model.get_submodule(name)
    product = layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    torch.testing.assert_close(plain.get_submodule(name).weight, layer.base_layer.weight + 6 / 2 * product)


# ------------------------------------------------------------------------------------------------------------- runs


def test_what_is_saved_is_a_normal_checkpoint(folder, averaged_run, start):
    trained, output = averaged_run.model, folder / "averaged"
    for checkpoint in (output, output / "checkpoint-2"):
        assert load_file(checkpoint / "model.safetensors").keys() == start.state_dict().keys()
    loaded, info = DenseCLIPForSemanticSegmentation.from_pretrained(output, output_loading_info=True)
    assert not any(info.values())
    pixel_values = torch.rand(1, 3, 64, 64)
    trained.eval()
    with averaged_run.evaluated_weights(), torch.no_grad():
        expected = trained(pixel_values).logits
        torch.testing.assert_close(loaded(pixel_values).logits, expected, rtol=1e-4, atol=1e-5)
    segments = pipeline("image-segmentation", model=str(output))(PIL.Image.new("RGB", (64, 64)))
    assert {segment["label"] for segment in segments} <= set(TINY_CLASS_NAMES)

    # What was pretrained stayed, apart from the update of the adapted layers; what was new moved.
    own = trained.state_dict()
    for name, tensor in start.image_encoder.vision_model.state_dict().items():
        owner = f"image_encoder.vision_model.{name}"
        adapted = any(owner == f"{target}.{leaf}" for target in adapted_layers(trained) for leaf in ("weight", "bias"))
        stem, _, leaf = owner.rpartition(".")
        assert torch.equal(own[f"{stem}.base_layer.{leaf}" if adapted else owner], tensor), name
        assert torch.equal(loaded.state_dict()[owner], tensor) != (adapted and leaf == "weight"), name
    for name in ("prompts.contexts", "image_encoder.pyramid.upsample2.weight", "decode_head.classifier.weight"):
        assert not torch.equal(loaded.state_dict()[name], start.state_dict()[name]), name


def test_averages_are_of_the_matrices(folder, averaged_run, start):
    averaged = load_file(folder / "averaged" / "checkpoint-4" / "averaged_weights.safetensors")
    saved = load_file(folder / "averaged" / "model.safetensors")
    name = "image_encoder.vision_model.encoder.layers.2.self_attn.v_proj"
    product = averaged[f"{name}.lora_B.default.weight"] @ averaged[f"{name}.lora_A.default.weight"]
    expected = start.get_parameter(f"{name}.weight").detach() + 2 * product
    torch.testing.assert_close(saved[f"{name}.weight"], expected, rtol=1e-5, atol=1e-6)
    last = load_file(folder / "averaged" / "checkpoint-4" / "model.safetensors")
    assert not torch.equal(last[f"{name}.weight"], saved[f"{name}.weight"])


def test_adapter_alone_fits_the_model_that_was_started_from(folder, averaged_run, start):
    alone = folder / "averaged" / "adapter"
    assert sum(file.stat().st_size for file in alone.iterdir()) < 50_000
    loaded = DenseCLIPForSemanticSegmentation.from_pretrained(folder / "averaged")
    pixel_values = torch.rand(1, 3, 64, 64)
    tuned = peft.PeftModel.from_pretrained(start, alone).eval()
    with torch.no_grad():
        expected = loaded.image_encoder(pixel_values).pixel_embeddings
        actual = tuned.image_encoder(pixel_values).pixel_embeddings
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_run_that_is_gone_on_from_ends_like_a_straight_one(folder, averaged_run):
    resumed = train(
        folder, "resumed", "--ema_decay", "0.7", "--resume_from_checkpoint", f"{folder}/averaged/checkpoint-2"
    )
    straight = averaged_run.model.state_dict()
    for name, tensor in resumed.model.state_dict().items():
        assert torch.equal(tensor, straight[name]), name
    saved = [load_file(folder / name / "model.safetensors") for name in ("averaged", "resumed")]
    assert all(torch.equal(tensor, saved[1][name]) for name, tensor in saved[0].items())


def test_checkpoints_of_other_runs_are_refused(folder, averaged_run, start, tmp_path):
    checkpoint = folder / "averaged" / "checkpoint-2"
    with pytest.raises(ValueError, match="run with --lora_rank"):
        train(folder, "without", "--resume_from_checkpoint", str(checkpoint), lora=())
    other = DenseCLIPForSemanticSegmentation.from_clip_pretrained(folder / "clip1", TINY_CLASS_NAMES, **SMALL)
    add_lora(other, 2)
    with pytest.raises(ValueError, match="started from other weights than this model, as image_encoder"):
        load_with_adapter(other, checkpoint)
    add_lora(start, 4)
    with pytest.raises(ValueError, match="--lora_rank 2 --lora_alpha 4, so it .* with --lora_rank 4 --lora_alpha 8"):
        load_with_adapter(start, checkpoint)
    with pytest.raises(ValueError, match="run without --lora_rank"):
        load_with_adapter(start, tmp_path)


def step_of(model, output_dir, **arguments):
    """One step of the Trainer with LoRA, and the weights after it."""
    torch.manual_seed(0)
    args = DenseCLIPTrainingArguments(
        str(output_dir), use_cpu=True, report_to=[], lora_rank=2, max_steps=1, save_strategy="no", **arguments
    )
    samples = [{"pixel_values": torch.rand(3, 64, 64), "labels": torch.randint(0, 5, (64, 64))} for _ in range(2)]
    DenseCLIPTrainer(model=model, args=args, train_dataset=samples).train()
    return model.state_dict()


def test_gradient_checkpointing_changes_nothing(tmp_path):
    ends = [
        step_of(tiny_model("vit"), tmp_path, gradient_checkpointing=flag, max_grad_norm=0) for flag in (False, True)
    ]
    moved = tiny_model("vit").state_dict()
    for name, tensor in ends[0].items():
        torch.testing.assert_close(ends[1][name], tensor, rtol=1e-3, atol=1e-6, msg=name)
        if ".lora_B." in name:
            assert tensor.any(), name
    assert not torch.equal(ends[0]["prompts.contexts"], moved["prompts.contexts"])


def test_best_checkpoint_is_loaded_with_its_adapter(folder, averaged_run):
    averaged_run.state.best_model_checkpoint = str(folder / "averaged" / "checkpoint-2")
    last = averaged_run.model.state_dict()
    last = {name: tensor.clone() for name, tensor in last.items()}
    averaged_run._load_best_model()
    saved, now = load_file(folder / "averaged" / "checkpoint-2" / "model.safetensors"), averaged_run.model
    merged = merged_state_dict(now)
    assert all(torch.equal(tensor, merged[name]) for name, tensor in saved.items())
    now.load_state_dict(last)


def test_norms_of_an_adapted_resnet_keep_their_statistics(tmp_path):
    model = tiny_model("resnet")
    before = {name: buffer.clone() for name, buffer in model.named_buffers() if "running" in name}
    step_of(model, tmp_path)
    for name, buffer in model.named_buffers():
        if "running" in name:
            assert torch.equal(buffer, before[name]) == name.startswith("image_encoder."), name


def test_arguments_that_contradict_each_other_are_refused(folder, tmp_path, monkeypatch):
    for words, message in (
        (("--freeze_image_encoder", "true"), "Give one of the two"),
        (("--lora_rank", "0"), "a number from 1 on"),
        (("--clip", "none"), "without --clip or --image they are random"),
    ):
        with pytest.raises(ValueError, match=message):
            train(folder, "refused", *words)
    with pytest.raises(ValueError, match="without --lora_rank there are none"):
        train(folder, "refused", "--lora_alpha", "4", lora=())
    with pytest.raises(ValueError, match="freeze_image_encoder keeps the pretrained weights"):
        train(folder, "refused", "--clip", "none", lora=("--freeze_image_encoder",))
    wrapped = peft.get_peft_model(tiny_model("vit"), peft.LoraConfig(target_modules=["q_proj"]))
    with pytest.raises(ValueError, match="PeftModel around it. For LoRA pass the model"):
        DenseCLIPTrainer(model=wrapped, args=DenseCLIPTrainingArguments(str(tmp_path), use_cpu=True, report_to=[]))
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ImportError, match=r"modeling-denseclip\[lora\]"):
        add_lora(tiny_model("vit"), 2)


# ---------------------------------------------------------------------------------------------------- peft directly

HEADS = ["prompts", "context_decoder", "neck", "decode_head"]


@pytest.mark.parametrize("kind, targets", [("vit", ["q_proj", "v_proj"]), ("resnet", ["conv2", "q_proj"])])
def test_peft_wraps_the_model(kind, targets, tmp_path):
    pixel_values, labels = torch.rand(2, 3, 64, 64), torch.randint(0, 5, (2, 64, 64))
    config = peft.LoraConfig(r=2, target_modules=targets, modules_to_save=HEADS)
    model = peft.get_peft_model(tiny_model(kind), config)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert all(".lora_" in name or ".modules_to_save." in name for name in trained)
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-2)
    losses = []
    for _ in range(3):
        outputs = model(pixel_values=pixel_values, labels=labels)
        losses.append(outputs.loss.item())
        outputs.loss.backward()
        assert {name for name, p in model.named_parameters() if p.grad is not None} == trained
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0]

    model.eval()
    with torch.no_grad():
        expected = model(pixel_values=pixel_values).logits
        model.save_pretrained(tmp_path / "adapter")
        loaded = peft.PeftModel.from_pretrained(tiny_model(kind), tmp_path / "adapter").eval()
        # Running statistics of batch norms that nothing saves are the start's: settle them alike.
        loaded.load_state_dict(model.state_dict())
        torch.testing.assert_close(loaded(pixel_values=pixel_values).logits, expected)
        merged = loaded.merge_and_unload()
        assert isinstance(merged, DenseCLIPForSemanticSegmentation)
        torch.testing.assert_close(merged(pixel_values).logits, expected, rtol=1e-4, atol=1e-5)
        merged.save_pretrained(tmp_path / "merged")
        reloaded = DenseCLIPForSemanticSegmentation.from_pretrained(tmp_path / "merged")
        torch.testing.assert_close(reloaded(pixel_values).logits, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_kept_text_embeddings_follow_adapters():
    base = tiny_model("vit").eval()
    plain = base.get_text_embeddings().clone()
    pattern = r"text_encoder\.encoder\.layers\.\d+\.self_attn\.(q|v)_proj"
    model = peft.get_peft_model(base, peft.LoraConfig(r=2, target_modules=pattern)).eval()
    assert torch.equal(base.get_text_embeddings(), plain)  # an adapter starts at zero
    adapted = give_updates(model).base_model.model.get_text_embeddings().clone()
    assert not torch.allclose(adapted, plain)
    with model.disable_adapter():
        assert torch.equal(base.get_text_embeddings(), plain)
    assert torch.equal(base.get_text_embeddings(), adapted)
    model.merge_adapter()
    torch.testing.assert_close(base.get_text_embeddings(), adapted)
    model.unmerge_adapter()
    merged = model.merge_and_unload()
    torch.testing.assert_close(merged.get_text_embeddings(), adapted)
    assert torch.equal(merged.get_text_embeddings(), merged.encode_class_names())
