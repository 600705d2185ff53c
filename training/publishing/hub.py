# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""A model's folder -> a repository of the Hub. What is not complete, or does not load, is not sent."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError, HTTPError
from huggingface_hub.utils import HFValidationError, filter_repo_objects, validate_repo_id
from transformers import AutoTokenizer
from transformers.dynamic_module_utils import get_relative_import_files

from modeling_denseclip import DenseCLIPConfig, DenseCLIPForSemanticSegmentation, DenseCLIPImageProcessor
from modeling_denseclip.tools.files.loading import read_json

from ..options.recipes import Recipe
from . import transformers_js as javascript
from .card import build_model_card, is_generated, read_metrics
from .endpoint import is_written_here, write_endpoint_files


CARD = "README.md"
CONFIG = "config.json"
PROCESSOR = "preprocessor_config.json"
WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
TOKENIZER = (
    *("tokenizer.json", "vocab.json", "merges.txt"),
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
)
JAVASCRIPT_TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
# What evaluations have written, of a single scale and of several scales and flips.
METRICS = ("metrics.json", "metrics_multi_scale.json")
# The classes by which a repository is loaded where this package is not installed.
AUTO_CLASSES = ("AutoConfig", "AutoModelForSemanticSegmentation", "AutoImageProcessor")
COMMIT_MESSAGE = "Upload DenseCLIP"
# What `huggingface_hub` raises: HTTPError is the HTTP library's, offline mode raises ConnectionError, and RuntimeError
# wraps what was raised in the threads that upload.
HUB_ERRORS = (HTTPError, ConnectionError, RuntimeError)


@dataclass
class Upload:
    """What a directory gives to the Hub, and what its card is made of."""

    files: dict[str, Path | bytes]  # name in the repository -> file, or its content
    config: DenseCLIPConfig
    image_processor: DenseCLIPImageProcessor
    measured: list[dict]


def prepare_upload(directory: Path) -> Upload:
    """
    Find what of a directory belongs to a repository, and load it.

    Checkpoints, optimizer states, logs and whatever else lies there are left out.

    Raises:
        ValueError: for a directory that is not complete or does not load; names all that is missing, and where each
            file comes from.
    """
    config_path = directory / CONFIG
    if not config_path.is_file():
        raise ValueError(
            f"{directory} has no {CONFIG}, so nothing was sent. Name a folder that `model.save_pretrained` or the"
            " Trainer wrote."
        )
    check_is_own(config_path, directory)
    config = read_json(config_path)
    if config.get("model_type") != DenseCLIPConfig.model_type:
        raise ValueError(f"{directory} holds a model of type {config.get('model_type')!r}, not a DenseCLIP.")
    # A saved config may leave out what has its default value.
    uses_language = config.get("use_language", DenseCLIPConfig.use_language)

    missing = []
    weights = [path for pattern in WEIGHTS for path in sorted(directory.glob(pattern))]
    if not weights:
        missing.append("*.safetensors, the weights: `model.save_pretrained` writes them")
    if not (directory / PROCESSOR).is_file():
        missing.append(
            f"{PROCESSOR}: `image_processor.save_pretrained` writes it, and a Trainer with"
            " `processing_class=image_processor`"
        )
    tokenizer = [directory / name for name in TOKENIZER if (directory / name).is_file()] if uses_language else []
    if uses_language and not tokenizer:
        missing.append(
            "tokenizer.json: `CLIPTokenizer.from_pretrained('openai/clip-vit-base-patch16').save_pretrained` writes"
            " CLIP's, and `model.save_pretrained` that of `model.tokenizer`"
        )
    code, missing_code = find_code(directory)
    missing += [f"{name}: `save_pretrained` of this package's classes writes it" for name in missing_code]
    if missing:
        raise ValueError("\n  ".join([f"{directory} is not complete, so nothing was sent. It lacks", *missing]))

    metrics = [directory / name for name in METRICS if (directory / name).is_file()]
    for path in (directory / PROCESSOR, directory / CARD, *weights, *tokenizer, *metrics):
        check_is_own(path, directory)
    model, image_processor = load(directory)
    measured = {path.name: read_metrics(path) for path in metrics}
    files = {path.name: path for path in (config_path, directory / PROCESSOR, *weights, *tokenizer, *code)}
    for name, report in measured.items():
        files[name] = f"{json.dumps(report, indent=2, ensure_ascii=False)}\n".encode()
    return Upload(files=files, config=model.config, image_processor=image_processor, measured=list(measured.values()))


def prepare_javascript(folder: Path, upload: Upload) -> dict[str, Path]:
    """
    What of a folder for transformers.js goes to its branch, with the tokenizer: the library loads one from there if
    there is one on the main branch.

    Raises:
        ValueError: as [`transformers_js.find_files`], and for files that lie elsewhere.
    """
    weights = [path for name, path in upload.files.items() if name.endswith(".safetensors")]
    files = javascript.find_files(folder, weights)
    for path in files.values():
        check_is_own(path, path.parent)
    tokenizer = {name: upload.files[name] for name in JAVASCRIPT_TOKENIZER if name in upload.files}
    if tokenizer and len(tokenizer) < len(JAVASCRIPT_TOKENIZER):
        raise ValueError(
            f"The tokenizer has {', '.join(tokenizer)} alone, and transformers.js needs"
            f" {' and '.join(JAVASCRIPT_TOKENIZER)}, so nothing was sent. `save_pretrained` of the tokenizer writes"
            " both."
        )
    return files | tokenizer


def check_is_own(path: Path, directory: Path) -> None:
    """
    Raises:
        ValueError: for a file that lies elsewhere, by its name or as what a link leads to.
    """
    # The cache of the Hub keeps the files of a repository beside its snapshots, which link to them.
    own = [directory.resolve()]
    if own[0].parent.name == "snapshots":
        own.append(own[0].parents[1] / "blobs")
    if path.exists() and path.resolve().parent not in own:
        raise ValueError(
            f"{path} is {path.resolve()}, which is not in {directory}, so nothing was sent. Copy into that folder what"
            " belongs to the model."
        )


def find_code(directory: Path) -> tuple[list[Path], list[str]]:
    """
    The modules that the Auto classes import, with all that those import; and what of it is missing.

    Raises:
        ValueError: for an `auto_map`, or an import, that names code elsewhere.
    """
    auto_map = {}
    for path in (directory / CONFIG, directory / PROCESSOR):
        if path.is_file():
            entries = read_json(path).get("auto_map") or {}
            if not isinstance(entries, dict):
                raise ValueError(f"`auto_map` in {path} is a {type(entries).__name__}, so nothing was sent.")
            auto_map |= entries
    found, missing = set(), []
    for name in AUTO_CLASSES:
        if name not in auto_map:
            missing.append(f"an entry {name} in `auto_map`")
            continue
        module = str(auto_map[name]).partition(".")[0]
        if not module.isidentifier():
            raise ValueError(
                f"`auto_map` in {directory} says that {name} is {auto_map[name]!r}, so nothing was sent: that is no"
                " module beside the weights. `save_pretrained` of this package's classes writes the right ones."
            )
        entry = directory / f"{module}.py"
        check_is_own(entry, directory)  # before the next step reads it
        try:
            found |= {entry, *map(Path, get_relative_import_files(entry))}
        except FileNotFoundError as error:
            missing.append(Path(error.filename).name)
    for path in found:
        check_is_own(path, directory)
    return sorted(found), sorted(set(missing))


def find_endpoint_files(directory: Path) -> dict[str, Path | bytes]:
    """
    What an Inference Endpoint needs besides, by its name in the repository: of these files those that somebody has
    written into the directory, and ours in the place of the others.

    Raises:
        ValueError: for one that lies elsewhere.
    """
    files = {}
    for name, text in write_endpoint_files().items():
        path = directory / name
        check_is_own(path, directory)
        files[name] = path if path.is_file() and not is_written_here(path) else text.encode()
    return files


def load(directory: Path) -> tuple[DenseCLIPForSemanticSegmentation, DenseCLIPImageProcessor]:
    """Load all that a user will load."""
    try:
        model, loading = DenseCLIPForSemanticSegmentation.from_pretrained(directory, output_loading_info=True)
        image_processor = DenseCLIPImageProcessor.from_pretrained(directory)
        if model.config.use_language:
            AutoTokenizer.from_pretrained(directory)
    except Exception as error:  # its readers raise errors of all kinds
        raise ValueError(f"{directory} does not load, so nothing was sent: {error}") from error
    wrong = sorted({*loading["missing_keys"], *loading["unexpected_keys"]})
    if wrong:
        raise ValueError(
            f"The weights in {directory} do not fit its {CONFIG}, so nothing was sent: {len(wrong)} tensors are"
            f" missing or unknown, such as {', '.join(wrong[:5])}. Save both together by `model.save_pretrained`."
        )
    return model, image_processor


def push_directory(
    directory: str | Path,
    repo_id: str,
    *,
    token: str | None = None,
    private: bool | None = None,
    revision: str | None = None,
    commit_message: str = COMMIT_MESSAGE,
    recipe: Recipe | None = None,
    base_model: str | Sequence[str] | None = None,
    transformers_js: str | Path | None = None,
    handler: bool = False,
) -> str:
    """
    Push a model's directory to a repository of the Hub, in one commit: everything arrives or nothing.

    Repository and branch are made where they do not exist. Weights of an earlier push that are not among the new ones
    are removed by the same commit.

    Args:
        directory (`str` or `Path`): what the Trainer, or `save_pretrained` of model and image processor, wrote.
        repo_id (`str`): `"user/name"`, or `"name"` in the account that the token belongs to.
        token (`str`, *optional*): a token that may write. Defaults to `HF_TOKEN`, or that of `hf auth login`.
        private (`bool`, *optional*): whether a new repository is private. Defaults to the account's setting.
        revision (`str`, *optional*): a branch. Defaults to `"main"`.
        commit_message (`str`, *optional*, defaults to `"Upload DenseCLIP"`): the message of the commit.
        recipe ([`Recipe`], *optional*): the recipe that the model was trained by, for the card.
        base_model (`str` or `Sequence[str]`, *optional*): the checkpoints that it was trained from, for the card.
            Default to the recipe's.
        transformers_js (`str` or `Path`, *optional*): a folder that `training.export --format transformers.js` wrote
            of this model. It is pushed behind the model, to the branch `"transformers.js"`.
        handler (`bool`, *optional*, defaults to `False`): whether `handler.py` and `requirements.txt` are sent too, by
            which Hugging Face's Inference Endpoints run the model. Those in the directory are sent as they are.

    Returns:
        `str`: the address of the commit.

    Raises:
        ValueError: for a directory that is not complete, or a name that no repository can have. Nothing was sent.
        PermissionError: for a token that is missing, unknown, or may not write there.
        ConnectionError: if the Hub cannot be reached or breaks off. The same call completes the upload later.
        OSError: for any other refusal of the Hub.
    """
    directory = Path(directory)
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ValueError(
            f"{repo_id!r} is no name of a repository, so nothing was sent: {error} Write it as user/name."
        ) from error
    upload = prepare_upload(directory)
    if transformers_js is not None and revision == javascript.BRANCH:
        raise ValueError(
            f"The branch {revision} is for JavaScript alone, so nothing was sent. Name another --revision."
        )
    for_javascript = None if transformers_js is None else prepare_javascript(Path(transformers_js), upload)
    if handler:
        upload.files |= find_endpoint_files(directory)
    path = directory / CARD
    try:
        card = path.read_text(encoding="utf-8") if path.is_file() else None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8, so nothing was sent: {error}") from error

    api = HfApi(token=token)
    try:
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if revision is not None:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        if card is None or is_generated(card):  # one that somebody wrote or edited stays
            described = {"recipe": recipe, "measured": upload.measured, "base_model": base_model}
            described["in_javascript"] = for_javascript is not None
            card = str(build_model_card(upload.config, upload.image_processor, repo_id=repo_id, **described))
        contents = {CARD: card.encode()} | upload.files
        # Weights of an earlier push would be loaded in place of the new ones.
        remote = api.list_repo_files(repo_id, revision=revision)
        weights = filter_repo_objects(remote, allow_patterns=[*WEIGHTS, "pytorch_model*"])
        operations = [CommitOperationAdd(name, content) for name, content in contents.items()]
        operations += [CommitOperationDelete(name) for name in weights if name not in contents]
        commit = api.create_commit(repo_id, operations, commit_message=commit_message, revision=revision)
    except HUB_ERRORS as error:
        state = f"Nothing was committed to {repo_id}; the model is in {directory}."
        raise explain_hub_error(error, repo_id, token, state) from error
    if for_javascript is not None:
        try:
            push_javascript(api, repo_id, for_javascript, commit_message)
        except HUB_ERRORS as error:
            state = f"The model was pushed to {commit.commit_url}, but nothing of {transformers_js}."
            raise explain_hub_error(error, repo_id, token, state) from error
    return commit.commit_url


def push_javascript(api: HfApi, repo_id: str, files: dict[str, Path], commit_message: str) -> None:
    """Make files, by their names in the repository, the only ones of the branch for transformers.js, in one commit."""
    api.create_branch(repo_id, branch=javascript.BRANCH, exist_ok=True)
    remote = api.list_repo_files(repo_id, revision=javascript.BRANCH)
    operations = [CommitOperationAdd(name, path) for name, path in files.items()]
    # A new branch begins with the files of the main one.
    operations += [CommitOperationDelete(name) for name in remote if name not in {*files, ".gitattributes"}]
    api.create_commit(repo_id, operations, commit_message=commit_message, revision=javascript.BRANCH)


def explain_hub_error(error: Exception, repo_id: str, token: str | None, state: str) -> OSError:
    """What went wrong between us and the Hub, how things stand now (`state`), and what to do about it."""
    while isinstance(error, RuntimeError) and error.__cause__ is not None:
        error = error.__cause__
    if not isinstance(error, HfHubHTTPError):
        return ConnectionError(
            f"The connection to {constants.ENDPOINT} failed ({type(error).__name__}: {error}). {state} The same"
            " command completes the upload."
        )
    status, said = error.response.status_code, error.server_message or error.response.reason_phrase
    login = (
        f"Make a token with the role 'write' at {constants.ENDPOINT}/settings/tokens, and give it by `hf auth login`,"
        " HF_TOKEN or --token."
    )
    if status == 401 and (token or get_token()) is None:
        return PermissionError(f"No token was given, and the Hub takes uploads only with one. {login} {state}")
    if status == 401:
        return PermissionError(f"The Hub refuses the token ({said}): it is wrong or has expired. {login} {state}")
    if status == 403:
        return PermissionError(
            f"The token may not write to {repo_id} ({said}). Its account has to own the repository or to belong to its"
            f" organization. {login} {state}"
        )
    again = " Try the same command again later." if status == 429 or status >= 500 else ""
    return OSError(f"The Hub answered with status {status} ({said}). {state}{again}")
