# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""What a model card says, and that the cards of the paper's rows are up to date."""

import ast
import json
import re
import shutil

import pytest
import yaml
from huggingface_hub import ModelCard

from modeling_denseclip import DenseCLIPConfig, DenseCLIPImageProcessor
from tests.tiny import draw_picture, make_tiny_tokenizer, tiny_config, tiny_model
from training import model_card
from training.model_card import CARDS, REPOSITORY
from training.options.recipes import Recipe
from training.publishing.card import build_model_card, is_generated, read_metrics


# The 18 rows of the paper's Tables 1, 2 and 5: mIoU SS and MS, what they start from, and words of their description.
CLIP_RN50, CLIP_RN101, CLIP_VIT = (
    "timm/resnet50_clip.openai",
    "timm/resnet101_clip.openai",
    "openai/clip-vit-base-patch16",
)
RN50, RN101, DEIT = "microsoft/resnet-50", "microsoft/resnet-101", "facebook/deit-base-patch16-224"
VIT_21K = "google/vit-base-patch16-224-in21k"
SWIN_T, SWIN_S = "microsoft/swin-tiny-patch4-window7-224", "microsoft/swin-small-patch4-window7-224"
ROWS = {
    "imagenet_fpn_rn50": ("38.6", "40.6", RN50, ["Semantic FPN on ResNet, the baseline", "ImageNet-1K", "ImageNet's"]),
    "imagenet_fpn_rn101": (
        "40.4",
        "42.3",
        RN101,
        ["Semantic FPN on ResNet, the baseline", "ImageNet-1K", "ImageNet's"],
    ),
    "imagenet_fpn_vit_b16": ("48.3", "50.9", DEIT, ["Semantic FPN on ViT, the baseline", "ImageNet-1K", "ImageNet's"]),
    "imagenet21k_fpn_vit_b16": ("49.1", "50.4", VIT_21K, ["on ViT, the baseline", "ImageNet-21K", "[0.5, 0.5, 0.5]"]),
    "clip_fpn_rn50": ("39.6", "41.6", CLIP_RN50, ["Semantic FPN on CLIP's ResNet, the baseline", "pretraining: CLIP"]),
    "clip_fpn_rn101": ("42.7", "44.3", CLIP_RN101, ["Semantic FPN on CLIP's ResNet, the baseline"]),
    "clip_fpn_vit_b16": ("49.4", "50.3", CLIP_VIT, ["Semantic FPN on CLIP's Vision Transformer, the baseline"]),
    "denseclip_fpn_rn50": (
        "43.5",
        "44.7",
        CLIP_RN50,
        ["on CLIP's ResNet:", "post-model prompting", "Semantic FPN, 256"],
    ),
    "denseclip_fpn_rn101": ("45.1", "46.5", CLIP_RN101, ["on CLIP's ResNet:", "post-model prompting", "CLIP's mean"]),
    "denseclip_fpn_vit_b16": ("50.6", "51.3", CLIP_VIT, ["on CLIP's Vision Transformer:", "post-model prompting"]),
    "denseclip_language_fpn_rn50": ("42.1", None, CLIP_RN50, ["learned contexts, which no picture changes"]),
    "denseclip_pre_model_fpn_rn50": (
        "42.9",
        None,
        CLIP_RN50,
        ["(pre-model prompting)", "apparently with the text tower"],
    ),
    "denseclip_imagenet_fpn_rn50": ("41.0", "43.0", [CLIP_VIT, RN50], ["on ResNet:", "ImageNet-1K", "ImageNet's"]),
    "denseclip_imagenet_fpn_rn101": ("43.0", "45.2", [CLIP_VIT, RN101], ["on ResNet:", "ImageNet-1K", "ImageNet's"]),
    "upernet_swin_tiny": ("44.5", "45.8", SWIN_T, ["UperNet on Swin, the baseline", "UperNet, 512", "auxiliary head"]),
    "upernet_swin_small": (
        "47.6",
        "49.5",
        SWIN_S,
        ["UperNet on Swin, the baseline", "UperNet, 512", "auxiliary head"],
    ),
    "denseclip_upernet_swin_tiny": (
        "45.4",
        "46.5",
        [CLIP_VIT, SWIN_T],
        ["on Swin:", "UperNet, 512", "auxiliary head"],
    ),
    "denseclip_upernet_swin_small": ("48.3", "49.7", [CLIP_VIT, SWIN_S], ["on Swin:", "UperNet, 512", "ImageNet-1K"]),
}


def make_recipe(**sections) -> Recipe:
    sections = {
        "paper": {"table": 1, "row": "RN50 DenseCLIP", "mean_iou": 43.5, "mean_iou_multi_scale": 44.7, "gflops": None},
        "model": {"config": "configuration/models/denseclip_fpn_rn50.json", "clip": "timm/resnet50_clip.openai"},
        "data": {"dataset": "ade20k", "crop_size": [512, 512]},
        "training": {"max_steps": 80000, "learning_rate": 1e-4, "output_dir": "/data/me/outputs"},
        "hardware": {},
        **sections,
    }
    return Recipe(name="my_recipe", path=REPOSITORY / "configuration" / "my_recipe.yaml", **sections)


def make_metrics(protocol: str = "SS", mean_iou: float = 0.42119, dataset: str = "ADE20K", num_images: int = 2000):
    return {
        "protocol": {
            "name": protocol,
            "description": f"{protocol}, sliding window 512 x 512 with stride 341, short side 512",
            "inference_mode": "slide",
            "window_size": [512, 512],
            "scales": [1.0],
            "flip": False,
        },
        "dataset": {"name": dataset, "split": "validation", "num_images": num_images},
        "mean_iou": mean_iou,
        "mean_accuracy": 0.5,
        "overall_accuracy": 0.8125,
    }


def write_card(config: DenseCLIPConfig | None = None, processor: DenseCLIPImageProcessor | None = None, **arguments):
    return str(build_model_card(config or tiny_config("vit"), processor or DenseCLIPImageProcessor(), **arguments))


def read_head(card: str) -> dict:
    return yaml.safe_load(card.split("---\n")[1])


def read_results(card: str) -> list[list[str]]:
    """The cells of the table of results, without its head."""
    section = card.split("## Results")[1].split("## ")[0]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if line[:1] == "|"][2:]


def test_the_cards_of_the_rows_are_up_to_date(capsys):
    model_card.main(["--check"])
    assert sorted(path.stem for path in CARDS.glob("*.md")) == sorted([*ROWS, "README", "TEMPLATE"])


def test_a_stale_card_is_found_and_written_anew(tmp_path, monkeypatch, capsys):
    cards = tmp_path / "cards"
    shutil.copytree(CARDS, cards)
    monkeypatch.setattr(model_card, "CARDS", cards)
    card = cards / "clip_fpn_rn50.md"
    up_to_date = card.read_text()
    card.write_text(up_to_date.replace("| 39.6 | not measured yet |", "| 39.6 | 43.5 |"))
    (cards / "of_no_recipe.md").write_text("mine")
    (cards / "denseclip_fpn_rn50.md").unlink()
    with pytest.raises(ValueError, match=r"3 cards in cards/ are stale") as raised:
        model_card.main(["--check"])
    assert "-| ADE20K validation, 2,000 images | SS, single scale | 39.6 | 43.5 |" in str(raised.value)
    assert "of_no_recipe.md" in str(raised.value)

    model_card.main([])
    assert card.read_text() == up_to_date
    assert (cards / "denseclip_fpn_rn50.md").is_file()
    assert (cards / "of_no_recipe.md").read_text() == "mine"
    assert "of_no_recipe.md belongs to no recipe" in capsys.readouterr().out


@pytest.mark.parametrize("row", ROWS)
def test_the_card_of_a_row_has_the_papers_figures_and_none_of_ours(row):
    single_scale, multi_scale, base_model, words = ROWS[row]
    card = (CARDS / f"{row}.md").read_text()
    assert [cells[2:4] for cells in read_results(card)] == [
        [figure, "not measured yet"] for figure in (single_scale, multi_scale) if figure is not None
    ]
    head = read_head(card)
    assert head["license"] == "apache-2.0"
    assert head["library_name"] == "transformers"
    assert head["pipeline_tag"] == "image-segmentation"
    assert head["base_model"] == base_model
    # Nothing of CLIP is in a baseline on another encoder.
    assert ("clip" in head["tags"]) == ("clip_fpn" in row or row.startswith("denseclip"))
    assert head["datasets"] == ["zhoubolei/scene_parse_150"]
    assert "model-index" not in head
    window = 640 if "vit" in row else 512
    assert f"short side to {window} pixels" in card
    assert ("No sliding window" if "swin" in row else f"larger than {window} x {window} pixels") in card
    assert '"wall", and end at 149, "flag"' in card
    assert ("names of the classes" in card) == row.startswith("denseclip")
    for said in words:
        assert said in card


def test_figures_that_were_measured_have_their_protocol():
    single, multiple = make_metrics(), make_metrics("MS", 0.43)
    card = write_card(repo_id="someone/mine", recipe=make_recipe(), measured=[single, multiple])
    data, description = "ADE20K validation, 2,000 images", single["protocol"]["description"]
    assert read_results(card) == [
        [data, description, "43.5", "42.12", "50.00", "81.25"],
        [data, description.replace("SS", "MS"), "44.7", "43.00", "50.00", "81.25"],
    ]
    (index,) = read_head(card)["model-index"]
    (result,) = index["results"]  # one task on one data set
    assert result["task"]["type"] == "image-segmentation"
    assert result["dataset"] == {"name": "ADE20K", "type": "zhoubolei/scene_parse_150", "split": "validation"}
    assert [(metric["type"], metric["value"]) for metric in result["metrics"]] == [
        ("mean_iou", 0.4212),
        ("mean_iou", 0.43),
    ]
    for metric, metrics in zip(result["metrics"], (single, multiple), strict=True):
        assert metrics["protocol"]["description"] in metric["name"]
        assert metric["args"] == {**metrics["protocol"], "num_images": 2000}
    # The Hub's own library reads it.
    assert [entry.metric_value for entry in ModelCard(card).data.eval_results] == [0.4212, 0.43]


@pytest.mark.parametrize("other", [{"dataset": "Street scenes"}, {"num_images": 20}])
def test_what_was_measured_on_other_data_is_not_beside_the_papers(other):
    card = write_card(recipe=make_recipe(), measured=[make_metrics(**other)])
    rows = read_results(card)
    assert [cells[2:4] for cells in rows] == [
        ["43.5", "not measured yet"],
        ["44.7", "not measured yet"],
        ["", "42.12"],
    ]
    name, num_images = other.get("dataset", "ADE20K"), other.get("num_images", 2000)
    assert rows[2][0] == f"{name} validation, {num_images:,} images"
    (result,) = read_head(card)["model-index"][0]["results"]
    # What the Hub takes for an id of a data set.
    assert re.fullmatch(r"(?:[\w-]+/)?[\w.-]+", result["dataset"]["type"])


def test_what_is_not_known_is_not_said():
    card = write_card()
    assert "Not measured yet." in card
    assert "Not by a recipe of the paper's rows" in card
    assert 'model="path/or/hub-repo"' in card
    assert "ADE20K" not in card
    head = read_head(card)
    assert not {"base_model", "datasets", "model-index"} & head.keys()

    # Nothing of the machine gets into it, as a path would.
    elsewhere = make_recipe(model={"clip": "/data/me/weights/RN50.pt"})
    elsewhere.path = REPOSITORY.parent / "private" / "secret_recipe.yaml"
    card = write_card(recipe=elsewhere)
    assert "base_model" not in read_head(card)
    assert "`secret_recipe.yaml`, from the weights of `RN50.pt`:" in card
    assert "private" not in card
    assert "/data/me" not in card
    assert "base_model" not in read_head(write_card(recipe=elsewhere, base_model="weights/RN50.pt"))
    assert read_head(write_card(recipe=elsewhere, base_model="someone/clip"))["base_model"] == "someone/clip"
    card = write_card(base_model=r"C:\Users\me\secret\RN50.pt")
    assert "From the weights of `RN50.pt`" in card and "secret" not in card
    card = write_card(base_model=["someone/clip", "weights/mine.pt"])
    assert read_head(card)["base_model"] == "someone/clip"
    assert "From the weights of `someone/clip` and `mine.pt`, and not by a recipe" in card


def test_the_facts_are_those_of_the_configuration():
    card = write_card(
        tiny_config(
            "resnet",
            use_language=False,
            inference_mode="whole",
            window_size=(96, 128),
            window_stride=(64, 32),
            ignore_index=254,
        ),
        DenseCLIPImageProcessor(size={"height": 48, "width": 80}),
    )
    assert "Semantic FPN on CLIP's ResNet" in card
    assert "to 48 x 80 pixels (height x width)" in card
    assert "No sliding window" in card
    assert "windows of 96 x 128 pixels with stride 64 x 32" in card
    assert '"wall", and end at 4, "person". Pixels labelled 254' in card
    assert "0 wall, 1 sky, 2 traffic light, 3 right ventricle cavity, 4 person\n" in card


def test_an_edited_card_is_not_taken_for_a_generated_one(tmp_path):
    card = write_card(repo_id="someone/mine", recipe=make_recipe(), measured=[make_metrics()])
    assert is_generated(card)
    (tmp_path / "README.md").write_text(card)
    assert is_generated(ModelCard.load(tmp_path / "README.md").content)
    for before, after in [
        ("license: apache-2.0", "license: mit"),
        ("## Limits", "## Limits\n\nIt has never seen snow."),
        ("42.12", "43.50"),
    ]:
        assert before in card
        assert not is_generated(card.replace(before, after))
    assert not is_generated(card + "\nMore of mine.\n")
    assert not is_generated("# Mine\n")
    assert not is_generated("")


def test_the_examples_of_a_card_run(tmp_path, monkeypatch):
    model = tiny_model("vit")
    model.tokenizer = make_tiny_tokenizer()
    processor = DenseCLIPImageProcessor(size={"shortest_edge": 64, "longest_edge": 160})
    directory = tmp_path / "saved"
    model.save_pretrained(directory)
    processor.save_pretrained(directory)
    draw_picture(90, 70).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    card = write_card(model.config, processor, repo_id=str(directory))
    from_pipeline, from_package = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    names = {}
    exec(from_package, names)
    assert names["segmentation"].shape == (70, 90)
    # The last line of the other shows what comes out.
    exec(from_pipeline, names)
    last_line = ast.get_source_segment(from_pipeline, ast.parse(from_pipeline).body[-1])
    assert {segment["label"] for segment in eval(last_line, names)} <= set(model.config.id2label.values())


def test_the_citation_is_that_of_the_readme():
    (bibtex,) = re.findall(r"```bibtex\n(.*?)\n```", (REPOSITORY / "README.md").read_text(), flags=re.DOTALL)
    assert bibtex in write_card()


def test_metrics_without_their_protocol_are_refused(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps(make_metrics()))
    assert read_metrics(path) == make_metrics()
    without_protocol = make_metrics()
    del without_protocol["protocol"]
    for metrics, said in [
        (without_protocol, r"lacks protocol\.name, protocol\.description"),
        (make_metrics() | {"mean_iou": None}, "lacks mean_iou"),
        (make_metrics() | {"dataset": {"name": "ADE20K"}}, r"lacks dataset\.split, dataset\.num_images"),
    ]:
        path.write_text(json.dumps(metrics))
        with pytest.raises(ValueError, match=said) as raised:
            read_metrics(path)
        assert str(path) in str(raised.value)
    path.write_text("{")
    with pytest.raises(ValueError, match="no valid JSON"):
        read_metrics(path)
