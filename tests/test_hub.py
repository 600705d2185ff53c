# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""Pushing a model to a Hub on loopback, and loading it from there in a process that has nothing else."""

import io
import json
import os
import subprocess
from hashlib import sha256
from pathlib import Path

import datasets
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPModel, ResNetConfig, ResNetModel

from modeling_denseclip import DenseCLIPImageProcessor
from tests.fixtures import openai_clip_fixtures
from tests.hub_server import READ_TOKEN, USER, WRITE_TOKEN, HubServer, read_card_head
from tests.test_remote_code import ROOT, SIZE, assert_same, run_elsewhere, segment_here, settled_model
from tests.tiny import (
    TINY_CLASS_NAMES,
    draw_picture,
    make_tiny_tokenizer,
    save_checkpoint,
    save_tiny_architecture,
    tiny_config,
    tiny_model,
)
from tests.warm import warm_python
from training.demonstration.tokenizer import build_tokenizer
from training.publishing.hub import prepare_upload, push_directory
from training.publishing.transformers_js import write_folder


# Runs modules as `python -m` does, one after another, without importing torch for each.
RUN_MODULES = """
import contextlib, io, json, runpy, sys, time

from huggingface_hub import constants

time.sleep = lambda seconds: None  # how long the client waits between its attempts is not our matter
constants.DOWNLOAD_CHUNK_SIZE = 1000  # what is kept of a download that is cut: our files are smaller than its 10 MB
for line in sys.stdin:
    sys.argv = json.loads(line)
    output, code = io.StringIO(), 0
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try:
            runpy.run_module(sys.argv[0], run_name="__main__")
        except SystemExit as end:
            code = end.code
    print(json.dumps([code, output.getvalue()]), flush=True)
"""

LOAD_FROM_THE_HUB = """
import json

model = AutoModelForSemanticSegmentation.from_pretrained(directory, trust_remote_code=True)
image_processor = AutoImageProcessor.from_pretrained(directory, trust_remote_code=True)
segmenter = pipeline("image-segmentation", model=directory, trust_remote_code=True, device="cpu")
without_task = pipeline(model=directory, trust_remote_code=True, device="cpu")
check(model, image_processor, segmenter.model, segmenter.image_processor, without_task.model)
by_other_names = [auto.from_pretrained(directory, trust_remote_code=True) for auto in (AutoModel, AutoProcessor)]
check(*by_other_names)

def masks(segmenter):
    return [
        (segment["label"], torch.frombuffer(bytearray(segment["mask"].tobytes()), dtype=torch.uint8))
        for segment in segmenter(picture)
    ]

results = segment(model, image_processor)
results["by_other_names"] = segment(*by_other_names)
# Saved anew, the checkpoint points at its own code, not at the Hub's.
by_other_names[0].save_pretrained("again")
by_other_names[1].save_pretrained("again")
saved = [json.load(open("again/" + name))["auto_map"] for name in ("config.json", "preprocessor_config.json")]
results["auto_map"] = {auto: code for auto_map in saved for auto, code in auto_map.items()}
results["masks"], results["without_task"] = masks(segmenter), masks(without_task)
results["kept"] = model.set_class_names(["person", "red wall"]).kept
torch.save(results, output_path)
print("done")
"""


def make_environment(hub: HubServer, home: Path, token: str | None = None) -> dict[str, str]:
    kept = ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT", "COVERAGE_PROCESS_CONFIG")
    return {
        **{name: os.environ[name] for name in kept if name in os.environ},
        **hub.environment(home, token),
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
        "CUDA_VISIBLE_DEVICES": "",
    }


@pytest.fixture(scope="module")
def running_hub():
    with HubServer() as hub:
        yield hub


@pytest.fixture
def hub(running_hub):
    running_hub.reset()
    return running_hub


@pytest.fixture(scope="module")
def client(running_hub, tmp_path_factory):
    home = tmp_path_factory.mktemp("client")
    process = subprocess.Popen(
        [*warm_python(), "-c", RUN_MODULES],
        cwd=ROOT,
        env=make_environment(running_hub, home),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    yield process
    process.stdin.close()
    process.wait()


@pytest.fixture
def run(client, hub):
    """`python -m MODULE ...` -> exit code, and what it wrote."""

    def run_module(*words) -> tuple[int, str]:
        client.stdin.write(json.dumps([*map(str, words)]) + "\n")
        client.stdin.flush()
        code, output = json.loads(client.stdout.readline())
        assert "Traceback" not in output, output
        return code, output

    return run_module


@pytest.fixture
def push(run):
    """`python -m training.push ...` -> exit code, and what it wrote."""

    def push_with(*words, token: str | None = WRITE_TOKEN) -> tuple[int, str]:
        return run("training.push", *words, *([] if token is None else ["--token", token]))

    return push_with


# What `from_clip_pretrained` makes of keywords, a line each, is saved in a numbered folder.
START_FROM_THE_HUB = """
import json, sys

from modeling_denseclip import DenseCLIPForSemanticSegmentation

for index, line in enumerate(sys.stdin):
    try:
        model = DenseCLIPForSemanticSegmentation.from_clip_pretrained(**json.loads(line))
        model.save_pretrained(f"{sys.argv[1]}/{index}")
        answer = None
    except Exception as error:
        answer = f"{type(error).__name__}: {error}"
    print(json.dumps(answer), flush=True)
"""


def save(model, directory: Path, **kwargs) -> Path:
    return save_checkpoint(model, DenseCLIPImageProcessor(size=SIZE), directory, **kwargs)


def uploads(hub: HubServer) -> int:
    return sum(request.method == "PUT" for request in hub.requests)


def test_a_pushed_model_is_all_that_its_user_needs(hub, push, tmp_path):
    processor = DenseCLIPImageProcessor(size=SIZE)
    model = settled_model("vit", processor)
    directory = save(model, tmp_path / "run")
    # What a run leaves beside its model.
    for name in (
        "optimizer.pt",
        "training_args.bin",
        "trainer_state.json",
        "checkpoint-2/model.safetensors",
        "log.txt",
    ):
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_bytes(b"not for the Hub")
    repo_id = f"{USER}/tiny"

    code, output = push(directory, repo_id)
    assert code == 0, output
    assert hub.commits(repo_id) == ["initial commit", "Upload DenseCLIP"]
    assert f"{hub.url}/{repo_id}/commit/{hub.sha(repo_id)}" in output
    files = hub.files(repo_id)
    assert files.keys() == {
        *("config.json", "model.safetensors", "preprocessor_config.json", "README.md"),
        *("tokenizer.json", "tokenizer_config.json"),
        *(path.name for path in directory.glob("*.py")),
    }
    assert all(data == (directory / name).read_bytes() for name, data in files.items() if name != "README.md")
    assert not (directory / "README.md").exists()
    assert read_card_head(files)["pipeline_tag"] == "image-segmentation"

    picture, elsewhere = draw_picture(133, 110, seed=7), tmp_path / "elsewhere"
    results, _ = run_elsewhere(LOAD_FROM_THE_HUB, repo_id, picture, elsewhere, hub.environment(elsewhere, None))
    expected = segment_here(model, processor, picture)
    assert_same(results, expected)
    assert_same(results["by_other_names"], expected)
    model_code = "modeling_denseclip.DenseCLIPForSemanticSegmentation"
    assert results["auto_map"] == {
        "AutoConfig": "configuration_denseclip.DenseCLIPConfig",
        "AutoModel": model_code,
        "AutoModelForSemanticSegmentation": model_code,
        **dict.fromkeys(("AutoImageProcessor", "AutoProcessor"), "image_processing_denseclip.DenseCLIPImageProcessor"),
    }
    for name in ("masks", "without_task"):
        segmentation = torch.full_like(expected["mask"], -1)
        for label, mask in results[name]:
            segmentation[mask.unflatten(0, picture.size[::-1]) > 0] = TINY_CLASS_NAMES.index(label)
        assert torch.equal(segmentation, expected["mask"]), name
    assert results["kept"] == ("person",)  # by the tokenizer that was pushed


def test_an_upload_cut_in_the_middle_changes_nothing_and_the_next_completes_it(hub, push, tmp_path):
    repo_id = f"{USER}/tiny"
    first, second = tiny_model("vit", use_language=False), tiny_model("vit", use_language=False, seed=1)
    assert push(save(first, tmp_path / "first"), repo_id)[0] == 0
    before = hub.files(repo_id)
    directory = save(second, tmp_path / "second", max_shard_size="100KB")
    shards = {path.name for path in directory.glob("*.safetensors")}
    assert len(shards) > 2

    hub.cut_uploads(first=2)
    code, output = push(directory, repo_id)
    assert code == 2
    assert len(hub.blobs) == 2, "the weights of before, and the one upload that was not cut"
    assert f"The connection to {hub.url} failed" in output
    assert f"Nothing was committed to {repo_id}" in output
    assert str(directory) in output
    assert hub.files(repo_id) == before
    assert len(hub.commits(repo_id)) == 2

    # As much is lost where the commit itself is cut.
    hub.cut_uploads(None)
    hub.refuse("/commit/", status=None)
    code, output = push(directory, repo_id)
    assert code == 2
    assert f"The connection to {hub.url} failed" in output
    assert hub.files(repo_id) == before

    hub.refuse(None)
    sent = uploads(hub)
    code, output = push(directory, repo_id)
    assert code == 0, output
    assert uploads(hub) == sent, "what had arrived is not sent again"
    files = hub.files(repo_id)
    assert all(files[name] == (directory / name).read_bytes() for name in shards)
    # The former weights would be loaded in place of the shards.
    assert {name for name in files if name.endswith(".safetensors")} == shards
    assert len(hub.commits(repo_id)) == 3


def test_a_bad_token_is_named_and_ends_the_command(hub, push, tmp_path):
    directory = save(tiny_model("vit", use_language=False), tmp_path / "run")
    result = subprocess.run(
        [*warm_python(), "-m", "training.push", str(directory), f"{USER}/tiny"],
        cwd=ROOT,
        env=make_environment(hub, tmp_path, token="hf_wrong"),
        capture_output=True,
        text=True,
    )
    assert (result.returncode, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: The Hub refuses the token (Invalid credentials in Authorization header)")
    assert f"{hub.url}/settings/tokens" in line
    assert "hf_wrong" not in line
    assert hub.requests[0].token == "hf_wrong"

    code, output = push(directory, f"{USER}/tiny", token=None)
    assert code == 2
    assert "No token was given" in output
    assert "hf auth login" in output
    code, output = push(directory, f"{USER}/tiny", token=READ_TOKEN)
    assert code == 2
    assert f"The token may not write to {USER}/tiny" in output
    code, output = push(directory, "another/tiny")
    assert code == 2
    assert "The token may not write to another/tiny" in output
    hub.refuse("/api/repos/create", status=418, message="Short and stout")
    code, output = push(directory, f"{USER}/tiny")
    assert code == 2
    assert "status 418 (Short and stout)" in output
    assert not hub.repositories


def test_branch_privacy_and_a_name_without_its_owner(hub, push, tmp_path):
    directory = save(tiny_model("resnet", use_language=False), tmp_path / "run")
    code, output = push(directory, "tiny", "--private", "--revision", "trial", "--commit_message", "First trial")
    assert code == 0, output
    repo_id = f"{USER}/tiny"
    assert hub.repositories["model", repo_id].private
    assert hub.commits(repo_id) == ["initial commit"]
    assert hub.commits(repo_id, "trial") == ["initial commit", "First trial"]
    assert f'model="{repo_id}"' in hub.files(repo_id, "trial")["README.md"].decode()
    # Once more, on both branches that exist now.
    assert push(directory, repo_id, "--revision", "trial", "--commit_message", "Again")[0] == 0
    assert hub.commits(repo_id, "trial")[-1] == "First trial", "nothing has changed"
    assert push(directory, repo_id)[0] == 0
    assert hub.files(repo_id) == hub.files(repo_id, "trial")


def write_web(directory: Path, folder: Path, *kinds: str) -> Path:
    """A folder as `training.export --format transformers.js` writes it of a model, but for what is in its files."""
    folder.parent.mkdir(exist_ok=True)
    files = {kind: folder.with_name(kind) for kind in kinds}
    for kind, file in files.items():
        file.write_text(f"a graph in {kind} of {directory}")
    weights = {path.name: sha256(path.read_bytes()).hexdigest() for path in directory.glob("*.safetensors")}
    card = {"class_names": TINY_CLASS_NAMES, "license": "mit", "checkpoint_sha256": weights, "versions": {}}
    card["int8"] = {"agreement": 0.9876, "num_measured_images": 20}
    write_folder(files, folder, card)
    return folder


def test_files_for_javascript_have_a_branch_of_their_own(hub, push, tmp_path):
    directory, repo_id = save(tiny_model("vit"), tmp_path / "run"), f"{USER}/tiny"
    web = write_web(directory, tmp_path / "web", "float32", "int8")
    (web / "notes.txt").write_text("mine")
    hub.refuse("/commit/transformers.js", status=429, message="Slow down")
    code, output = push(directory, repo_id, "--transformers_js", web)
    assert code == 2
    assert f"status 429 (Slow down). The model was pushed to {hub.url}/{repo_id}/commit/" in output
    assert f"but nothing of {web}." in output
    hub.refuse(None)
    code, output = push(directory, repo_id, "--transformers_js", web)
    assert code == 0, output
    assert f"For JavaScript: pipeline('image-segmentation', '{repo_id}', {{ revision: 'transformers.js' }})" in output

    main, branch = hub.files(repo_id), hub.files(repo_id, "transformers.js")
    # The library loads a tokenizer, since there is one on the main branch.
    tokenizer = {"tokenizer.json", "tokenizer_config.json"}
    written = {"config.json", "preprocessor_config.json", "README.md", "onnx/model.onnx", "onnx/model_quantized.onnx"}
    assert branch.keys() == written | tokenizer
    assert all(branch[name] == (web / name).read_bytes() for name in written)
    assert all(branch[name] == main[name] for name in tokenizer)
    assert "98.76 % of the pixels of 20 photographs keep their class." in branch["README.md"].decode()
    assert json.loads(main["config.json"])["model_type"] == "denseclip"
    assert "onnx/model.onnx" not in main
    assert f"'{repo_id}', {{ revision: 'transformers.js' }}" in main["README.md"].decode()

    # Of other weights, without those of 8 bits.
    other = save(tiny_model("vit", seed=1), tmp_path / "other")
    code, output = push(other, repo_id, "--transformers_js", web)
    assert code == 2 and "was exported from other weights" in output
    assert hub.files(repo_id) == main
    assert push(other, repo_id, "--transformers_js", write_web(other, tmp_path / "other_web", "float32"))[0] == 0
    names = [name for name in hub.files(repo_id, "transformers.js") if name.startswith("onnx/")]
    assert names == ["onnx/model.onnx"]
    code, output = push(other, repo_id, "--transformers_js", web, "--revision", "transformers.js")
    assert code == 2 and "The branch transformers.js is for JavaScript alone" in output


def test_a_card_that_somebody_wrote_or_edited_is_pushed_as_it_is(hub, push, tmp_path):
    repo_id = f"{USER}/tiny"
    directory = save(tiny_model("resnet", use_language=False), tmp_path / "run")
    (directory / "metrics.json").write_text(
        json.dumps(
            {
                "protocol": {"name": "SS", "description": "SS, whole image, short side 96"},
                "dataset": {"name": "Scenes", "split": "validation", "num_images": 3},
                **{"mean_iou": 0.25, "mean_accuracy": 0.5, "overall_accuracy": 0.75},
            }
        )
    )
    recipe = ROOT / "configuration" / "recipes" / "ade20k" / "clip_fpn_rn50.yaml"
    assert push(directory, repo_id, "--recipe", recipe)[0] == 0
    generated = hub.files(repo_id)["README.md"].decode()
    assert "| Scenes validation, 3 images | SS, whole image, short side 96 |  | 25.00 | 50.00 | 75.00 |" in generated
    assert "configuration/recipes/ade20k/clip_fpn_rn50.yaml" in generated
    assert "metrics.json" in hub.files(repo_id)

    # A generated one, as a copy of the repository brings it along, is written anew: here without the recipe.
    (directory / "README.md").write_text(generated)
    assert push(directory, repo_id)[0] == 0
    assert "clip_fpn_rn50" not in hub.files(repo_id)["README.md"].decode()
    assert (directory / "README.md").read_text() == generated

    edited = generated.replace("## Limits", "## Limits\n\n- It has never seen snow.")
    (directory / "README.md").write_text(edited)
    assert push(directory, repo_id)[0] == 0
    assert hub.files(repo_id)["README.md"].decode() == edited == (directory / "README.md").read_text()


@pytest.fixture
def training_words(tmp_path):
    """A folder of four pictures and a model that is trained on them for two steps."""
    for split in ("training", "validation"):
        for kind in ("images", "annotations"):
            (tmp_path / "data" / kind / split).mkdir(parents=True)
        for index in range(2):
            picture = draw_picture(96, 64, seed=index)
            picture.save(tmp_path / "data" / "images" / split / f"{index}.png")
            picture.convert("L").point(lambda value: value // 60).save(
                tmp_path / "data" / "annotations" / split / f"{index}.png"
            )
    (tmp_path / "data" / "classes.txt").write_text("\n".join(TINY_CLASS_NAMES))
    architecture = save_tiny_architecture(tmp_path, "resnet")
    return (
        f"--data_dir {tmp_path}/data {architecture} --short_side 64"
        f" --long_side 128 --crop_size 64 --max_steps 2 --output_dir {tmp_path}/run --use_cpu true --report_to none"
        f" --disable_tqdm true --save_strategy steps --save_steps 1 --push_to_hub --hub_model_id {USER}/trained"
    ).split()


def test_training_pushes_whole_checkpoints_and_a_card_with_what_was_measured(hub, run, training_words, tmp_path):
    code, output = run("training.train", *training_words, "--hub_token", WRITE_TOKEN)
    assert code == 0, output
    repo_id = f"{USER}/trained"
    commits = hub.commits(repo_id)
    # A checkpoint is passed over while the one before is still on its way.
    assert commits[:2] == ["initial commit", "Training in progress, step 1"] and commits[-1] == "End of training"
    files = hub.files(repo_id)
    assert files["model.safetensors"] == (tmp_path / "run" / "model.safetensors").read_bytes()
    assert {"modeling_denseclip.py", "preprocessor_config.json", "tokenizer.json"} <= files.keys()
    assert not [name for name in files if "/" in name or name.endswith((".bin", ".pt", ".jpg"))]
    head = read_card_head(files)
    (result,) = head["model-index"][0]["results"]
    measured = json.loads(files["metrics.json"])
    assert result["metrics"][0]["value"] == pytest.approx(measured["mean_iou"], abs=1e-4)
    assert measured["protocol"]["description"] in result["metrics"][0]["name"]
    # The data, the architecture, the tokenizer and the results lay in folders of this machine.
    assert measured["dataset"]["name"] == "data"
    assert not [name for name, content in files.items() if str(tmp_path).encode() in content]


def test_reports_of_earlier_releases_are_pushed_without_paths(hub, push, tmp_path):
    directory = save(tiny_model("resnet", use_language=False), tmp_path / "run")
    report = {
        "protocol": {"name": "SS", "description": "SS, whole image, short side 96"},
        "dataset": {
            "name": r"C:\Users\me\client\street",
            "split": "validation",
            "num_images": 3,
            "left_out": [
                "The image /data/me/client data/images/validation/7.png cannot be read (image file is truncated).",
                r"The mask C:\client\street\annotations\validation\8.png has 3 x 4 pixels.",
            ],
        },
        **{"mean_iou": 0.25, "mean_accuracy": 0.5, "overall_accuracy": 0.75},
    }
    (directory / "metrics.json").write_text(json.dumps(report))
    assert push(directory, f"{USER}/tiny")[0] == 0
    files = hub.files(f"{USER}/tiny")
    assert not [name for name in ("README.md", "metrics.json") if b"client" in files[name]]
    pushed = json.loads(files["metrics.json"])
    assert pushed["dataset"]["left_out"] == [
        "The image 7.png cannot be read (image file is truncated).",
        "The mask 8.png has 3 x 4 pixels.",
    ]
    assert pushed == {**report, "dataset": pushed["dataset"]}
    assert "street validation, 3 images" in files["README.md"].decode()


def test_a_data_set_of_the_hub_is_trained_on_by_its_columns(hub, run, training_words, tmp_path):
    files = {}
    for split in ("training", "validation"):
        rows = []
        for index in range(2):
            for column, kind in (("photo", "images"), ("ids", "annotations")):
                data = (tmp_path / "data" / kind / split / f"{index}.png").read_bytes()
                files[f"{split}/{column}/{index}.png"] = data
            rows.append({"photo_file_name": f"photo/{index}.png", "ids_file_name": f"ids/{index}.png"})
        files[f"{split}/metadata.jsonl"] = "\n".join(map(json.dumps, rows)).encode()
    hub.add_files("dataset", f"{USER}/scenes", files)
    words = [word for word in training_words if word != "--push_to_hub"]
    words[words.index("--data_dir") : words.index("--data_dir") + 2] = []
    code, output = run(
        *("training.train", *words, "--dataset_name", f"{USER}/scenes", "--train_split", "train"),
        *("--image_column", "photo", "--label_column", "ids", "--class_names_file", tmp_path / "data" / "classes.txt"),
    )
    assert code == 0, output
    report = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert report["dataset"] == {"name": f"{USER}/scenes", "split": "validation", "num_images": 2}
    assert sum(entry["pixels"] for entry in report["per_class"]) == 2 * 96 * 64

    source = ["--dataset_name", f"{USER}/scenes", "--image_column", "photo", "--label_column", "ids"]
    code, output = run(
        *("training.inspect_dataset", *source, "--class_names_file", tmp_path / "data" / "classes.txt"),
        *("--output_dir", tmp_path / "inspection"),
    )
    assert code == 0 and "Training accepts this data set." in output, output
    inspected = json.loads((tmp_path / "inspection" / "report.json").read_text())
    assert inspected["dataset_name"] == f"{USER}/scenes"
    assert {split: counts["pairs"] for split, counts in inspected["splits"].items()} == {"train": 2, "validation": 2}
    # The model knows the names, which these rows do not tell.
    code, output = run("training.evaluate", tmp_path / "run", *source, "--use_cpu", "true")
    assert code == 0 and "They are taken for the classes of the model" in output, output
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["per_class"] == report["per_class"]


def test_a_data_set_of_the_hub_is_streamed(hub, run, training_words, tmp_path):
    """Tables with names of classes in their features; those to train on are not fetched as a whole."""
    pictures = dict.fromkeys(("image", "annotation"), datasets.Image())
    features = datasets.Features({**pictures, "kind": datasets.ClassLabel(names=list(TINY_CLASS_NAMES))})
    files = {}
    for name in ("train", "validation"):
        for index in range(2):
            picture = draw_picture(96, 64, seed=index)
            row = {"image": picture, "annotation": picture.convert("L").point(lambda value: value // 60), "kind": 0}
            datasets.Dataset.from_list([row], features=features).to_parquet(table := io.BytesIO())
            files[f"data/{name}-{index:05d}-of-00002.parquet"] = table.getvalue()
    hub.add_files("dataset", f"{USER}/tables", files)
    words = [word for word in training_words if word != "--push_to_hub"]
    words[words.index("--data_dir") : words.index("--data_dir") + 2] = []
    code, output = run("training.train", *words, "--dataset_name", f"{USER}/tables", "--streaming", "true")
    assert code == 0, output
    assert f"streamed: the split 'train' of {USER}/tables, 2 shards for 1 reader" in output
    assert "taken for the classes of its column 'kind'" in output
    report = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert report["dataset"] == {"name": f"{USER}/tables", "split": "validation", "num_images": 2}
    assert [entry["name"] for entry in report["per_class"]] == list(TINY_CLASS_NAMES)
    asked = [(request.path.rpartition("/")[2], request.range) for request in hub.requests if request.method == "GET"]
    tables = [(name.partition("-")[0], size is None) for name, size in asked if name.endswith(".parquet")]
    assert set(tables) == {("train", False), ("validation", True)}  # the latter are fetched whole, to stay


def test_training_does_not_start_for_a_hub_that_will_not_take_it(hub, run, training_words, tmp_path):
    code, output = run("training.train", *training_words, "--hub_token", "hf_wrong")
    assert code == 1
    assert "error: The Hub refuses the token" in output
    assert "Nothing was trained yet" in output
    assert not list((tmp_path / "run").glob("checkpoint-*"))


def test_a_hub_that_fails_while_training_does_not_end_it(hub, run, training_words, tmp_path):
    hub.refuse("/commit/", status=500, message="Out of order")
    code, output = run("training.train", *training_words, "--hub_token", WRITE_TOKEN, "--hub_strategy", "every_save")
    # The push at the end says what is wrong, when all is trained and saved.
    assert code == 1
    assert "Out of order" in output
    assert (tmp_path / "run" / "model.safetensors").is_file() and (tmp_path / "run" / "metrics.json").is_file()
    assert hub.commits(f"{USER}/trained") == ["initial commit"]


# --- A Hub that fails ------------------------------------------------------------------------------------------------


@pytest.fixture
def predict(run, tmp_path):
    """`denseclip predict --model REPO` on one picture -> exit code, and what it wrote."""
    draw_picture(96, 64).save(tmp_path / "picture.png")

    def predict_with(repo_id: str) -> tuple[int, str]:
        out = tmp_path / repo_id.replace("/", "--")
        return run(
            *("modeling_denseclip.tools.command", "predict", tmp_path / "picture.png"),
            *("--model", repo_id, "--out", out, "--device", "cpu"),
        )

    return predict_with


def fetched_anew(hub: HubServer, directory: Path, name: str) -> str:
    """A repository that no client has seen, with the files of a directory."""
    hub.add_files("model", f"{USER}/{name}", {path.name: path.read_bytes() for path in directory.iterdir()})
    return f"{USER}/{name}"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return save(tiny_model("resnet", use_language=False), tmp_path_factory.mktemp("saved"))


# What the Hub does, and how often.
MOMENTS = {
    "too many requests": lambda hub, path: hub.refuse(path, status=429, times=2, Retry_After="1"),
    "unavailable": lambda hub, path: hub.refuse(path, status=503, times=2),
}


@pytest.mark.parametrize("path", ["", "safetensors"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_hub_that_fails_for_a_moment_is_asked_again(hub, predict, saved, tmp_path, moment, path):
    repo_id = fetched_anew(hub, saved, f"{moment.replace(' ', '-')}{path}")
    MOMENTS[moment](hub, path)
    code, output = predict(repo_id)
    assert code == 0, output
    assert hub.num_failures_left == 0, "nothing has failed, the test proves nothing"


def test_a_download_that_is_cut_goes_on_where_it_was(hub, predict, saved, tmp_path):
    repo_id = fetched_anew(hub, saved, "cut")
    hub.cut_downloads(3, "model.safetensors")
    # By itself, or with huggingface_hub 1 when it is called again.
    results = [predict(repo_id) for _ in range(4)]
    assert results[-1][0] == 0, results
    assert all(code in (0, 2) for code, _ in results)
    assert hub.num_failures_left == 0
    ranges = [request.range for request in hub.requests if request.path.endswith("safetensors")]
    starts = [int(value.removeprefix("bytes=").split("-")[0]) for value in ranges if value is not None]
    assert len(starts) == 3 and 0 < starts[0] < starts[1] < starts[2]
    assert predict(str(saved))[0] == 0
    masks = [(tmp_path / name.replace("/", "--") / "picture-mask.png").read_bytes() for name in (repo_id, str(saved))]
    assert masks[0] == masks[1]


@pytest.mark.parametrize("status", [429, 503])
def test_a_hub_that_stays_away_is_an_error_and_what_was_fetched_serves(hub, predict, saved, status):
    repo_id, unknown = (fetched_anew(hub, saved, f"{name}-{status}") for name in ("known", "unknown"))
    assert predict(repo_id)[0] == 0
    hub.refuse("", status=status)
    code, output = predict(unknown)
    assert code == 2 and "error: " in output
    assert unknown in output or hub.url in output
    code, output = predict(repo_id)
    assert code == 0, output
    hub.refuse(None)
    assert predict(unknown)[0] == 0


def test_a_hub_that_is_down(hub, predict, push, saved):
    unknown = fetched_anew(hub, saved, "down")
    with hub.down():
        code, output = predict(unknown)
        assert code == 2 and "error: " in output
        assert hub.url in output or unknown in output
        code, output = push(saved, f"{USER}/pushed")
        assert code == 2 and f"The connection to {hub.url} failed" in output
        assert f"Nothing was committed to {USER}/pushed" in output
    assert predict(unknown)[0] == 0
    assert push(saved, f"{USER}/pushed")[0] == 0


def test_a_hub_that_closes_connections_is_named(hub, predict, saved):
    unknown = fetched_anew(hub, saved, "closing")
    hub.refuse("", status=None)
    code, output = predict(unknown)
    assert code == 2 and f"The connection to {hub.url} failed" in output


def test_a_hub_that_does_not_answer_in_time_is_asked_again(hub, saved, tmp_path):
    repo_id = fetched_anew(hub, saved, "slow")
    hub.stall(r"resolve.*model.safetensors$", times=1)
    draw_picture(96, 64).save(tmp_path / "picture.png")
    words = ["predict", tmp_path / "picture.png", "--model", repo_id, "--out", tmp_path / "out", "--device", "cpu"]
    patience = {"HF_HUB_ETAG_TIMEOUT": "2", "HF_HUB_DOWNLOAD_TIMEOUT": "2"}
    result = subprocess.run(
        [*warm_python(), "-m", "modeling_denseclip.tools.command", *map(str, words)],
        cwd=ROOT,
        env=make_environment(hub, tmp_path / "home") | patience,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert hub.num_failures_left == 0
    assert (tmp_path / "out" / "picture-mask.png").is_file()


@pytest.mark.parametrize("status", [403, 500])
@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_what_the_hub_answers_for_a_file_is_said(hub, predict, run, saved, name, status):
    """Transformers says that there is no such file."""
    repo_id = fetched_anew(hub, saved, f"refused-{name}-{status}")
    hub.refuse(f"/resolve/.*/{name}$", status=status, message="Not for you")
    results = [predict(repo_id), run("modeling_denseclip.tools.command", "info", repo_id)]
    for code, output in results:
        assert code == 2 and "Traceback" not in output
        (line,) = [line for line in output.splitlines() if line.startswith("error: ")]
        assert f"status {status} (Not for you) for " in line and repo_id in line, line
    hub.refuse(None)
    assert predict(repo_id)[0] == 0


def test_a_card_and_a_tokenizer_that_the_hub_refuses_are_not_taken_for_missing(hub, run, tmp_path):
    repo_id = fetched_anew(hub, save(tiny_model("resnet"), tmp_path / "language"), "refused-others")
    hub.refuse("/resolve/.*/README.md$", status=500, message="Out of order")
    code, output = run("modeling_denseclip.tools.command", "info", repo_id)
    assert code == 2 and f"status 500 (Out of order) for README.md of {repo_id}" in output
    hub.refuse("/resolve/.*/(tokenizer|vocab).json$", status=403, message="Not for you")
    draw_picture(96, 64).save(tmp_path / "picture.png")
    words = ["predict", tmp_path / "picture.png", "--model", repo_id, "--out", tmp_path / "out", "--text", "sky"]
    code, output = run("modeling_denseclip.tools.command", *words)
    assert code == 2 and f"status 403 (Not for you) for tokenizer.json of {repo_id}" in output
    hub.refuse(None)
    assert run("modeling_denseclip.tools.command", "info", repo_id)[0] == 0


@pytest.mark.parametrize("path", ["/preupload/", "/lfs/objects/batch", "^/lfs/"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_an_upload_to_a_hub_that_fails_for_a_moment_is_tried_again(hub, push, saved, moment, path):
    MOMENTS[moment](hub, path)
    code, output = push(saved, f"{USER}/pushed")
    assert code == 0, output
    assert hub.num_failures_left == 0
    assert hub.files(f"{USER}/pushed")["model.safetensors"] == (saved / "model.safetensors").read_bytes()


@pytest.mark.parametrize("path", ["/create", "/commit/"])
def test_what_cannot_be_tried_again_by_itself_is_an_error_that_says_so(hub, push, saved, path):
    """A repository or a commit may have been made though the answer was an error: people look, and start it again."""
    hub.refuse(path, status=429, message="Slow down", times=1)
    code, output = push(saved, f"{USER}/pushed")
    assert code == 2
    assert f"status 429 (Slow down). Nothing was committed to {USER}/pushed" in output
    assert "Try the same command again later." in output
    assert hub.num_failures_left == 0
    assert push(saved, f"{USER}/pushed")[0] == 0
    assert hub.commits(f"{USER}/pushed") == ["initial commit", "Upload DenseCLIP"]


# In this process the Hub is switched off, so a request would be a ConnectionError.


@pytest.mark.parametrize(
    ("removed", "said"),
    [
        ("preprocessor_config.json", r"preprocessor_config\.json: `image_processor\.save_pretrained`"),
        ("model.safetensors", r"\*\.safetensors, the weights: `model\.save_pretrained`"),
        ("tokenizer*", r"tokenizer\.json: `CLIPTokenizer\.from_pretrained"),
        ("text_cache_denseclip.py", r"text_cache_denseclip\.py: `save_pretrained`"),  # which others import
        ("config.json", r"no config\.json, .* or the Trainer"),
    ],
)
def test_a_directory_that_lacks_something_is_refused_before_anything_is_sent(removed, said, tmp_path):
    directory = save(tiny_model("vit"), tmp_path / "run")
    for path in directory.glob(removed):
        path.unlink()
    with pytest.raises(ValueError, match=said) as raised:
        push_directory(directory, f"{USER}/tiny", token=WRITE_TOKEN)
    assert "nothing was sent" in str(raised.value)


def test_a_directory_that_does_not_load_is_refused(tmp_path):
    directory = save(tiny_model("vit", use_language=False), tmp_path / "run")
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"neck_hidden_size": 24}))
    with pytest.raises(ValueError, match="does not load"):
        push_directory(directory, f"{USER}/tiny")
    (directory / "config.json").write_text(json.dumps(config | {"model_type": "segformer"}))
    with pytest.raises(ValueError, match="'segformer', not a DenseCLIP"):
        push_directory(directory, f"{USER}/tiny")
    (directory / "config.json").write_text(json.dumps(config))
    weights = directory / "model.safetensors"
    tensors = load_file(weights)
    bias = tensors.pop("decode_head.classifier.bias")
    # Transformers would load it, and only report that these weights are random.
    save_file(tensors | {"decode_head.old_bias": bias}, weights, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"2 tensors are.* decode_head\.classifier\.bias, decode_head\.old_bias"):
        push_directory(directory, f"{USER}/tiny")
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ValueError, match="does not load"):
        push_directory(directory, f"{USER}/tiny")


@pytest.mark.parametrize("name", ["AutoConfig", "AutoImageProcessor"])
@pytest.mark.parametrize(
    "code", ["{elsewhere}/secrets.Class", "../elsewhere/secrets.Class", "a--secrets.Class", ["x"], 5]
)
def test_code_elsewhere_is_not_sent(code, name, tmp_path):
    directory = save(tiny_model("vit", use_language=False), tmp_path / "run")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "secrets.py").write_text("PASSWORD = 'x'")
    code = code.format(elsewhere=tmp_path / "elsewhere") if isinstance(code, str) else code
    for path in (directory / "config.json", directory / "preprocessor_config.json"):
        fields = json.loads(path.read_text())
        path.write_text(json.dumps(fields | {"auto_map": fields["auto_map"] | {name: code}}))
    with pytest.raises(ValueError, match=f"says that {name} is .* so nothing was sent"):
        push_directory(directory, f"{USER}/tiny", token=WRITE_TOKEN)


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "README.md", "metrics.json", "configuration_denseclip.py"]
)
def test_what_a_link_leads_to_is_not_sent(name, tmp_path):
    directory = save(tiny_model("vit", use_language=False), tmp_path / "run")
    path, secret = directory / name, tmp_path / "secret"
    if path.exists():
        path.rename(secret)
    secret.touch()
    path.symlink_to(secret)
    with pytest.raises(ValueError, match=f"{name} is .*secret, which is not in .*, so nothing was sent"):
        push_directory(directory, f"{USER}/tiny", token=WRITE_TOKEN)


def test_code_that_imports_from_elsewhere_is_not_sent(tmp_path):
    directory = save(tiny_model("vit", use_language=False), tmp_path / "run")
    (tmp_path / "secrets.py").write_text("PASSWORD = 'x'")
    path = directory / "configuration_denseclip.py"
    path.write_text(path.read_text() + "\nfrom ./secrets import PASSWORD\nfrom ../secrets import PASSWORD\n")
    with pytest.raises(ValueError, match="nothing was sent"):
        push_directory(directory, f"{USER}/tiny", token=WRITE_TOKEN)


def test_a_snapshot_in_the_cache_of_the_hub_can_be_sent(tmp_path):
    """Its files are links to those beside it."""
    snapshot = save(tiny_model("vit", use_language=False), tmp_path / "models--a--b" / "snapshots" / ("0" * 40))
    blobs = tmp_path / "models--a--b" / "blobs"
    blobs.mkdir()
    for index, path in enumerate(sorted(snapshot.iterdir())):
        path.rename(blobs / str(index))
        path.symlink_to(Path("..", "..", "blobs", str(index)))
    upload = prepare_upload(snapshot)
    assert {"config.json", "model.safetensors", "configuration_denseclip.py"} <= upload.files.keys()


def test_a_malformed_name_and_offline_mode_are_errors(tmp_path):
    directory = save(tiny_model("vit", use_language=False), tmp_path / "run")
    for name in ("a/b/c", "someone/my model", "someone/tiny.git"):
        with pytest.raises(ValueError, match=f"'{name}' is no name of a repository"):
            push_directory(directory, name)
    with pytest.raises(ConnectionError, match="HF_HUB_OFFLINE"):
        push_directory(directory, f"{USER}/tiny")


@pytest.fixture(scope="module")
def start(running_hub, tmp_path_factory):
    """`from_clip_pretrained(...)` in a process without a token -> the folder that it saves, or the error."""
    folder = tmp_path_factory.mktemp("started")
    process = subprocess.Popen(
        [*warm_python(), "-c", START_FROM_THE_HUB, str(folder)],
        cwd=ROOT,
        env=make_environment(running_hub, tmp_path_factory.mktemp("home")),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    counter = iter(range(100))

    def start_with(**kwargs) -> Path | str:
        process.stdin.write(json.dumps({"class_names": ["sky", "wall"], **SMALL_FIELDS, **kwargs}) + "\n")
        process.stdin.flush()
        error, index = json.loads(process.stdout.readline()), next(counter)
        return folder / str(index) if error is None else error

    yield start_with
    process.stdin.close()
    process.wait()


SMALL_FIELDS = {"context_decoder_hidden_size": 32, "neck_hidden_size": 16, "decode_head_hidden_size": 16}


def files_of(folder: Path, within: str = "") -> dict[str, bytes]:
    return {f"{within}{path.name}": path.read_bytes() for path in folder.iterdir()}


def tiny_clip(seed: int) -> CLIPModel:
    config = tiny_config("vit")
    fields = {"text_config": config.text_config.to_dict(), "vision_config": config.vision_config.to_dict()}
    torch.manual_seed(seed)
    return CLIPModel(CLIPConfig(**fields, projection_dim=32))


def test_keywords_reach_the_hub_and_not_the_config(hub, start, tmp_path):
    make_tiny_tokenizer().save_pretrained(tmp_path / "tokenizer")
    clips = [tiny_clip(seed) for seed in (0, 1, 2)]
    for seed, clip in enumerate(clips):
        clip.save_pretrained(tmp_path / f"clip{seed}")
    tokenizer = files_of(tmp_path / "tokenizer")
    former = hub.add_files("model", f"{USER}/clip", files_of(tmp_path / "clip0") | tokenizer, private=True)
    inner = dict.fromkeys(files_of(tmp_path / "clip0"), b"") | files_of(tmp_path / "clip2", "inner/")
    inner |= {f"inner/{name}": data for name, data in tokenizer.items()}
    hub.add_files("model", f"{USER}/inner", inner, private=True)
    # As on the Hub, a later commit has other weights; and no tokenizer, so that a mix-up of revisions shows.
    hub.add_files("model", f"{USER}/clip", files_of(tmp_path / "clip1") | dict.fromkeys(tokenizer, b"broken"))
    hub.add_files("model", f"{USER}/tokenizer", tokenizer, private=True)
    arrays, _ = openai_clip_fixtures.load("vit")
    save_file({name: torch.from_numpy(values) for name, values in arrays.items()}, tmp_path / "open_clip.safetensors")
    open_clip = {"open_clip_model.safetensors": (tmp_path / "open_clip.safetensors").read_bytes()}
    released = hub.add_files("model", f"{USER}/open_clip", open_clip, private=True)
    hub.add_files("model", f"{USER}/open_clip", {"open_clip_model.safetensors": b"broken"})
    clip, with_token = f"{USER}/clip", {"token": READ_TOKEN}
    elsewhere = {"tokenizer": f"{USER}/tokenizer"}

    def text_projection(folder: Path) -> torch.Tensor:
        assert isinstance(folder, Path), folder
        for path in folder.iterdir():
            if path.suffix == ".json":  # the files of tokenizers say where they were read from, as everywhere
                content = path.read_text()
                words = [READ_TOKEN, former, released, str(tmp_path), '"token"', '"revision"', '"cache_dir"']
                assert not [word for word in words if word in content], (path, content)
        return load_file(folder / "model.safetensors")["text_projection.weight"]

    assert "is not a valid model identifier" in start(clip_name_or_path=clip)
    assert all(request.token is None for request in hub.requests)
    first = start(clip_name_or_path=clip, **with_token, revision=former)
    assert torch.equal(text_projection(first), clips[0].text_projection.weight)
    config = json.loads((first / "config.json").read_text())
    assert config["class_token_ids"] == [list(ids) for ids in make_tiny_tokenizer()(["sky", "wall"]).input_ids]
    # Without a revision the last commit, with a tokenizer named that is in a repository of its own.
    latest = start(clip_name_or_path=clip, **with_token, **elsewhere, cache_dir=str(tmp_path / "cache"))
    assert torch.equal(text_projection(latest), clips[1].text_projection.weight)
    assert any((tmp_path / "cache").rglob("model.safetensors"))
    # A revision is that of the weights: the tokenizer's repository has none of that name.
    other = start(clip_name_or_path=clip, **with_token, **elsewhere, revision=former, dtype="bfloat16")
    assert torch.equal(text_projection(other), clips[0].text_projection.weight.bfloat16())
    assert "not a valid git identifier" in start(clip_name_or_path=clip, **with_token, revision="0" * 40)
    inner = start(clip_name_or_path=f"{USER}/inner", **with_token, subfolder="inner")
    assert torch.equal(text_projection(inner), clips[2].text_projection.weight)

    build_tokenizer(["a", "b"]).save_pretrained(tmp_path / "small")
    vit = {"clip_name_or_path": f"{USER}/open_clip", "tokenizer": str(tmp_path / "small"), "class_names": ["a", "b"]}
    projection = text_projection(start(**vit, **with_token, revision=released))
    assert torch.equal(projection, torch.from_numpy(arrays["text_projection"]).T)
    assert "could not be read as weights" in start(**vit, **with_token)
    assert "is not a valid model identifier" in start(**vit, revision=released, cache_dir=str(tmp_path / "empty"))

    # What is in the cache needs neither; and a request that should not be is none.
    number = len(hub.requests)
    cached = start(clip_name_or_path=clip, revision=former, local_files_only=True)
    assert torch.equal(text_projection(cached), clips[0].text_projection.weight)
    assert len(hub.requests) == number


def test_keywords_reach_the_backbone(hub, start, tmp_path):
    make_tiny_tokenizer().save_pretrained(tmp_path / "clip")
    tiny_clip(0).save_pretrained(tmp_path / "clip")
    resnets = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1], layer_type="basic")
        resnets.append(ResNetModel(config))
        resnets[-1].save_pretrained(tmp_path / f"resnet{seed}")
    former = hub.add_files("model", f"{USER}/resnet", files_of(tmp_path / "resnet0"), private=True)
    hub.add_files("model", f"{USER}/resnet", files_of(tmp_path / "resnet1"))
    hub.add_files("model", f"{USER}/clip", files_of(tmp_path / "clip"), private=True)
    image, token = {"image": f"{USER}/resnet"}, {"token": READ_TOKEN}

    def stem(folder: Path) -> torch.Tensor:
        assert isinstance(folder, Path), folder
        assert READ_TOKEN not in (folder / "config.json").read_text()
        assert former not in (folder / "config.json").read_text()
        return load_file(folder / "model.safetensors")[f"image_encoder.backbone.{STEM}"]

    expected = [model.state_dict()[STEM] for model in resnets]
    assert torch.equal(stem(start(**image, **token, revision=former, use_language=False)), expected[0])
    assert torch.equal(stem(start(**image, **token, text=f"{USER}/clip")), expected[1])
    assert "is not a valid model identifier" in start(**image, use_language=False, cache_dir=str(tmp_path / "empty"))
    refused = start(**image, **token, text=f"{USER}/clip", revision=former)
    assert "ValueError: `revision` names a place in one repository, and the two towers come from two" in refused


STEM = "embedder.embedder.convolution.weight"
