# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""In which numbers models compute: what `--dtype` chooses, and what bfloat16 changes."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from modeling_denseclip import DenseCLIPForSemanticSegmentation, DenseCLIPImageProcessor
from modeling_denseclip.tools.command import main
from modeling_denseclip.tools.files import devices
from modeling_denseclip.tools.files.devices import choose_dtype, prepare_for_inference, read_cpu_flags
from modeling_denseclip.tools.page import server
from tests.test_evaluate import write_data
from tests.test_pipeline import save_model
from tests.tiny import draw_picture, make_tiny_tokenizer
from training import evaluate


CPU = torch.device("cpu")
# Of /proc/cpuinfo, two cores each, shortened: AMD Zen 4, Intel Sapphire Rapids, Intel Skylake, Arm Neoverse V1.
ZEN_4 = "processor\t: {}\nflags\t\t: fpu avx2 avx512f avx512_bf16 avx512_vnni\nbugs\t\t: sysret_ss_attrs\n\n"
SAPPHIRE_RAPIDS = "processor\t: {}\nflags\t\t: fpu avx2 avx512f avx512_bf16 amx_bf16 amx_tile amx_int8\n\n"
SKYLAKE = "processor\t: {}\nflags\t\t: fpu avx2 avx512f avx512_vnni\nvmx flags\t: vnmi avx512_bf16\n\n"
NEOVERSE = "processor\t: {}\nFeatures\t: fp asimd sve i8mm bf16\n\n"


def pretend(monkeypatch, flags: set[str]):
    """A processor with these flags."""
    monkeypatch.setattr(devices, "read_cpu_flags", lambda: flags)


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A model in whose photographs each class is found."""
    folder = tmp_path_factory.mktemp("model")
    save_model("resnet", folder)
    make_tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    "text, expected",
    [(ZEN_4, torch.bfloat16), (SAPPHIRE_RAPIDS, torch.bfloat16), (SKYLAKE, torch.float32), (NEOVERSE, torch.float32)],
    ids=["Zen 4", "Sapphire Rapids", "Skylake", "Neoverse V1"],
)
def test_auto_is_what_the_processor_multiplies_in(text, expected, tmp_path, monkeypatch):
    (tmp_path / "cpuinfo").write_text(text.format(0) + text.format(1))
    monkeypatch.setattr(devices, "read_cpu_flags", partial(read_cpu_flags, tmp_path / "cpuinfo"))
    assert choose_dtype("auto", CPU, torch.float32) == expected
    assert choose_dtype("auto", CPU, torch.bfloat16) == expected
    assert choose_dtype("auto", CPU, torch.float16) == torch.float16
    assert choose_dtype("auto", CPU, torch.float64) == torch.float64


def test_auto_is_float32_where_nothing_is_known(tmp_path, monkeypatch):
    assert read_cpu_flags(tmp_path / "nothing") == set()  # as under Windows
    pretend(monkeypatch, {"avx512_bf16"})
    assert choose_dtype("auto", torch.device("mps"), torch.float32) == torch.float32
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert choose_dtype("auto", CPU, torch.float32) == torch.float32


@pytest.mark.parametrize("is_native", [True, False])
def test_auto_on_gpus(is_native, monkeypatch):
    """Older GPUs emulate bfloat16: `is_bf16_supported` alone is true of them."""
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or is_native
    )
    expected = torch.bfloat16 if is_native else torch.float32
    assert choose_dtype("auto", torch.device("cuda"), torch.float32) == expected


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
@pytest.mark.parametrize("flags", [set(), {"amx_bf16"}])
def test_a_named_type_is_taken_everywhere(name, flags, monkeypatch):
    pretend(monkeypatch, flags)
    for saved_in in (torch.float16, torch.float32, torch.float64):
        assert choose_dtype(name, CPU, saved_in) == getattr(torch, name)


def test_class_embeddings_and_folded_norms_are_rounded_once(saved):
    """They are those of the float32 model, rounded; also where the weights were saved in bfloat16."""
    for dtype in (torch.float32, torch.bfloat16):
        model = DenseCLIPForSemanticSegmentation.from_pretrained(saved, dtype=dtype)
        precise = DenseCLIPForSemanticSegmentation.from_pretrained(saved, dtype=dtype).float().fuse()
        half = prepare_for_inference(model, CPU, "bfloat16")
        assert half.dtype == torch.bfloat16 and half.is_fused
        assert torch.equal(half.constant_text_embeddings, precise.constant_text_embeddings.bfloat16())
        for name, parameter in half.named_parameters():
            assert torch.equal(parameter, precise.get_parameter(name).bfloat16()), name


def predict(saved: Path, *words: str) -> tuple[dict, dict[str, np.ndarray]]:
    """What `denseclip predict` says, and its masks."""
    assert main(["predict", "photos", "--model", str(saved), "--out", "out", "--device", "cpu", *words]) == 0
    report = json.loads(Path("out/predictions.json").read_text())
    return report, {file.name: np.asarray(Image.open(file)) for file in Path("out").glob("*-mask.png")}


@pytest.fixture
def photographs(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for seed, size in enumerate([(203, 151), (151, 203), (97, 64)]):
        draw_picture(*size, seed).save(tmp_path / f"photos/{seed}.png")
    return tmp_path


def test_predict_in_bfloat16(saved, photographs, monkeypatch, capsys):
    """The same class but where two are nearly equal; float32 is bit for bit what it was."""
    model = DenseCLIPForSemanticSegmentation.from_pretrained(saved).fuse()
    processor = DenseCLIPImageProcessor.from_pretrained(saved)
    pretend(monkeypatch, {"avx512_bf16"})
    report, half = predict(saved)
    assert report["dtype"] == "bfloat16" and "Computed in bfloat16" in capsys.readouterr().out
    pretend(monkeypatch, set())
    plain_report, plain = predict(saved)
    assert plain_report["dtype"] == "float32" and "Computed" not in capsys.readouterr().out
    assert predict(saved, "--dtype", "bfloat16")[0] == report
    assert any(not np.array_equal(half[name], plain[name]) for name in plain)
    for name, mask in plain.items():
        photograph = Image.open(f"photos/{name[0]}.png")
        with torch.no_grad():
            outputs = model(processor(photograph, return_tensors="pt").pixel_values)
        size = [photograph.size[::-1]]
        assert np.array_equal(mask, processor.post_process_semantic_segmentation(outputs, size)[0])
        logits = torch.nn.functional.interpolate(outputs.logits, size=size[0], mode="bilinear")[0]
        best = logits.topk(2, dim=0).values
        is_close = (best[0] - best[1] < 0.1 * logits.std()).numpy()
        assert is_close.mean() < 0.2 and (half[name] == mask)[~is_close].mean() >= 0.99


def test_texts_are_scored_in_float32_unless_asked(saved, photographs, monkeypatch):
    pretend(monkeypatch, {"avx512_bf16"})
    reports = [predict(saved, "--text", "sky", *words)[0] for words in ([], ["--dtype", "bfloat16"])]
    assert [report["dtype"] for report in reports] == ["float32", "bfloat16"]
    means = [[image["cosines"][0]["mean"] for image in report["images"]] for report in reports]
    assert means[0] == pytest.approx(means[1], abs=0.03) and means[0] != means[1]


def test_the_page(saved, monkeypatch):
    pretend(monkeypatch, {"avx512_bf16"})
    monkeypatch.setattr(server, "build_page", lambda model, *_: model)
    assert server.load_page(str(saved), "cpu").dtype == torch.bfloat16
    assert server.load_page(str(saved), "cpu", dtype="float32").dtype == torch.float32


def test_evaluation(saved, tmp_path, monkeypatch):
    """It computes in the type of the weights unless asked, and says in which."""
    pretend(monkeypatch, {"avx512_bf16"})
    data = write_data(tmp_path / "data")

    def run(*words: str) -> dict:
        common = ["--data_dir", str(data), "--output_dir", str(tmp_path), "--use_cpu", "--dataloader_num_workers", "0"]
        return evaluate.main([str(saved), *common, *words])

    plain, half, by_autocast = run(), run("--dtype", "auto"), run("--bf16")
    protocols = [report["protocol"] for report in (plain, half, by_autocast)]
    assert [protocol["dtype"] for protocol in protocols] == ["float32", "bfloat16", "bfloat16 by autocast"]
    assert protocols[1]["description"] == f"{protocols[0]['description']}, in bfloat16"
    for report in (half, by_autocast):
        assert report["per_class"] != plain["per_class"]
        assert report["mean_iou"] == pytest.approx(plain["mean_iou"], abs=0.02)
    with pytest.raises(ValueError, match="--bf16 and --dtype auto both say"):
        run("--bf16", "--dtype", "auto")
